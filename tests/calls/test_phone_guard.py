"""Who may use the phone in the browser: its own page on this machine, and the bot."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from dialing import Bot
from page_server import PhoneServer
from phoning import (
    ACCOUNT_SID,
    TOKEN,
    CalledBot,
    bot_that,
    page_of,
    page_to,
    phone_to,
    sends_nothing,
)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class TestOnlyItsOwnPage:
    """It can be used only from this machine, and only by the page that it serves."""

    @pytest.fixture
    async def phone(self) -> AsyncIterator[PhoneServer]:
        async with bot_that(sends_nothing) as url, phone_to(url) as phone:
            yield phone

    async def status(self, phone: PhoneServer, path: str = "/", **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(phone.url + path, headers=headers) as response,
        ):
            return response.status

    async def test_it_listens_on_loopback_only(self, phone: PhoneServer) -> None:
        assert phone.url.startswith("http://127.0.0.1:")
        addresses = {address for address, _ in phone._runner.addresses}
        assert addresses == {"127.0.0.1"}

    async def test_a_page_and_its_files_load_nothing_from_elsewhere(
        self, phone: PhoneServer
    ) -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/page.css", "/page.js", "/speech.wav"):
                async with session.get(phone.url + path) as response:
                    assert response.status == 200
                    policy = response.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'; script-src 'self';")
                    assert b"http" not in await response.read()

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
    async def test_another_host_name_is_refused(self, phone: PhoneServer, host: str) -> None:
        assert await self.status(phone, Host=host) == 403

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1", "null"])
    @pytest.mark.parametrize("path", ["/", "/page", "/speech.wav"])
    async def test_another_origin_is_refused(
        self, phone: PhoneServer, path: str, origin: str
    ) -> None:
        assert await self.status(phone, path, Origin=origin) == 403

    async def test_a_line_without_an_origin_is_refused(self, phone: PhoneServer) -> None:
        assert await self.status(phone, "/page") == 403

    async def test_its_own_names_are_served(self, phone: PhoneServer) -> None:
        port = phone.url.rsplit(":", 1)[1]
        own = f"http://localhost:{port}"
        assert await self.status(phone, Host=f"localhost:{port}", Origin=own) == 200

    @pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
    async def test_it_can_be_on_ipv6(self) -> None:
        async with PhoneServer(Bot("ws://127.0.0.1:1", ACCOUNT_SID), "::1") as phone:
            assert await self.status(phone, Origin=phone.url) == 200
            assert await self.status(phone, Host="::1") == 403

    async def test_a_page_has_one_call_at_a_time(self, phone: PhoneServer) -> None:
        async with page_of(phone) as page:
            await page.call()
            await page.order("call", rate=8000)
            await page.order("hang up")
            await page.event("ended")
            await page.call()
            assert [event["event"] for event in page.events].count("calling") == 2

    async def test_a_recording_is_its_pages_own_and_goes_with_it(self, phone: PhoneServer) -> None:
        async with page_of(phone) as page:
            await page.call()
            await page.event("step")
            sid = page.events[1]["call_sid"]
            assert await self.status(phone, f"/recordings/{sid}.wav") == 200
            assert await self.status(phone, "/recordings/CA1.wav") == 404
        async with asyncio.timeout(5):
            while await self.status(phone, f"/recordings/{sid}.wav") != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @pytest.mark.parametrize(
        "order", [{"do": "call", "rate": 8009}, {"do": "call"}, {"do": "x"}, []]
    )
    async def test_nonsense_from_a_page_is_ignored(self, phone: PhoneServer, order: object) -> None:
        async with page_of(phone) as page:
            await page._socket.send_json(order)
            await page.call()


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 191_975])
async def test_a_page_may_have_any_rate_of_a_browser(rate: int) -> None:
    async with page_to(sends_nothing) as page:
        await page.order("call", rate=rate)
        for _ in range(50):
            await page.event("step")
        # A step in which the number of samples is no whole one has one more or one less.
        assert abs(len(page.heard) - 2 * rate) <= 2 * (rate // 50 + 1)


async def test_only_keys_of_a_telephone_are_pressed() -> None:
    keys = []

    async def talk(bot: CalledBot) -> None:
        while True:
            keys.append((await bot.read("dtmf"))["dtmf"]["digit"])

    async with page_to(talk) as page:
        await page.call()
        for key in ("", "12", "A", "#"):
            await page.order("press", key=key)
        while not keys:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert keys == ["#"]


class TestTheRestApi:
    """The stand-in for Twilio's REST API checks credentials as strictly as Twilio."""

    @pytest.mark.parametrize(
        ("login", "form", "expected"),
        [
            ((ACCOUNT_SID, TOKEN), {"Status": "completed"}, (200, None)),
            (("SK" + "0" * 32, "any secret"), {"Status": "completed"}, (200, None)),
            ((ACCOUNT_SID, "f" * 32), {"Status": "completed"}, (401, 20003)),
            (("AC" + "1" * 32, TOKEN), {"Status": "completed"}, (401, 20003)),
            (None, {"Status": "completed"}, (401, 20003)),
            ((ACCOUNT_SID, TOKEN), {"Status": "busy"}, (400, 20001)),
            ((ACCOUNT_SID, TOKEN), {}, (400, 20001)),
        ],
    )
    async def test_a_call_is_ended_by_its_account_only(self, login, form, expected) -> None:
        async with (
            bot_that(sends_nothing) as url,
            phone_to(url, auth_token=TOKEN) as phone,
            page_of(phone) as page,
            aiohttp.ClientSession() as session,
        ):
            await page.call()
            sid = page.events[1]["call_sid"]
            path = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{sid}.json"
            headers = {"Authorization": aiohttp.encode_basic_auth(*login)} if login else {}
            async with session.post(phone.url + path, data=form, headers=headers) as response:
                assert (response.status, (await response.json()).get("code")) == expected
            if expected[0] == 200:
                assert (await page.event("ended"))["text"] == "The bot hung up."
                async with session.post(phone.url + path, data=form, headers=headers) as response:
                    assert (response.status, (await response.json())["code"]) == (404, 20404)
