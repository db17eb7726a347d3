"""Bots that the phone cannot call, who may use the phone, and the command that starts it."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import dialing
import phone.call
import pytest
from dialing import ACCOUNT_SID, CalledBot
from phone.server import PhoneServer
from phoning import (
    TOKEN,
    BotSide,
    bot_that,
    closes_at_once,
    echo_comes_back,
    page_of,
    page_to,
    phone_to,
    sends_garbage,
    sends_nothing,
)

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "phone"]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("simulation", "examples"))
}


async def vanishes(bot: BotSide) -> None:
    """Breaks the connection during the call."""
    await bot.send(event="clear")
    bot.request.transport.abort()


async def breaks_the_websocket(bot: BotSide) -> None:
    """Sends a reserved opcode. Source: RFC 6455, section 5.2."""
    bot.request.transport.write(b"\x83\x00")
    await bot.socket.receive()


class TestABotThatCannotBeCalled:
    """The page gets a sentence, and can call again."""

    async def told(self, url: str, event: str = "ended") -> str:
        """Calls twice; returns the sentence."""
        texts = set()
        async with phone_to(url) as phone, page_of(phone.url) as page:
            for _ in range(2):
                await page.order("call", rate=8000)
                texts.add((await page.event(event))["text"])
                if event != "ended":
                    await page.order("hang up")
                    await page.event("ended")
        (text,) = texts
        return text

    @pytest.mark.parametrize(
        ("talk", "event", "sentence"),
        [
            (closes_at_once, "ended", "The bot closed the connection at once, with WebSocket code"),
            (sends_garbage, "warning", "JSON is malformed"),
            (sends_nothing, "notice", "The bot has sent nothing for 0 s."),
            (vanishes, "ended", "The connection to the bot broke, with WebSocket code 1006."),
            (breaks_the_websocket, "ended", "The bot closed the connection at once"),
        ],
    )
    async def test_a_bot_that_misbehaves(self, talk, event, sentence, monkeypatch) -> None:
        monkeypatch.setattr(phone.call, "SILENT_SECS", 0.2)
        monkeypatch.setattr(phone.call, "AT_ONCE_SECS", 20)
        async with bot_that(talk) as url:
            assert (await self.told(url, event)).startswith(sentence)

    @pytest.mark.parametrize("scheme", ["ws", "http"])
    async def test_a_bot_that_is_not_there(self, scheme: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        url = f"{scheme}://127.0.0.1:{port}/"
        assert await self.told(url) == f"The bot is not there: nothing listens at {url}."

    @pytest.mark.parametrize("url", ["ws://a:99999/", "http://a..b/"])
    async def test_a_bot_whose_address_is_not_valid(self, url: str) -> None:
        assert f"is not valid: {url}." in await self.told(url)

    async def test_a_server_that_is_not_a_bot(self) -> None:
        async with bot_that(sends_nothing) as url:
            assert "its stream answered with status 404" in await self.told(url + "/x")
            assert "status 405" in await self.told(url.replace("ws://", "http://"))

    @pytest.mark.parametrize(
        ("answer", "sentence"),
        [(b"220 mail.example.com\r\n\r\n", "does not speak HTTP"), (b"", "gave no answer")],
    )
    async def test_a_server_that_does_not_speak_http(self, answer: bytes, sentence: str) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            assert sentence in await self.told(
                f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            )

    async def test_a_bot_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            host = f"127.0.0.1:{silent.getsockname()[1]}"
            async with phone_to(f"ws://{host}/") as server, page_of(server.url) as page:
                await page.order("call", rate=8000)
                await page.event("calling")
                await page.order("hang up")
                assert (await page.event("ended"))["text"] == "You hung up."
            monkeypatch.setattr(dialing, "ANSWER_SECS", 0.2)
            monkeypatch.setattr(phone.call, "ANSWER_SECS", 0.2)
            for scheme in ("ws", "http"):
                assert "sent nothing for 0 s." in await self.told(f"{scheme}://{host}/")

    async def test_a_machine_that_slept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with page_to(sends_nothing) as page:
            await page.call()
            monkeypatch.setattr(phone.call, "MAX_LATE_SECS", 0.1)
            time.sleep(0.5)  # noqa: ASYNC251  # nothing runs meanwhile
            text = (await page.event("ended"))["text"]
            assert text.startswith("The phone stood still for")


class TestWhoMayUseIt:
    """Only this machine, only the page that it serves, and the bot that ends its call."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[PhoneServer]:
        async with bot_that(sends_nothing) as url, phone_to(url, auth_token=TOKEN) as server:
            yield server

    async def status(self, server: PhoneServer, path: str = "/", **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(server.url + path, headers=headers) as response,
        ):
            return response.status

    async def test_a_page_and_its_files_load_nothing_from_elsewhere(self, server) -> None:
        assert {address for address, _ in server._runner.addresses} == {"127.0.0.1"}
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/page.css", "/page.js", "/speech.wav"):
                async with session.get(server.url + path) as response:
                    policy = response.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'; script-src 'self';")
                    assert b"http" not in await response.read()

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            *(("/", {"Host": host}) for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", "")),
            *(("/", {"Origin": o}) for o in ("http://evil.example", "http://127.0.0.1", "null")),
            ("/page", {"Origin": "http://evil.example"}),
            ("/page", {}),
            ("/speech.wav", {"Origin": "null"}),
        ],
    )
    async def test_another_host_or_origin_is_refused(self, server, path, headers) -> None:
        assert await self.status(server, path, **headers) == 403

    async def test_its_own_names_are_served(self, server) -> None:
        host = f"localhost:{server.url.rsplit(':', 1)[1]}"
        assert await self.status(server, Host=host, Origin=f"http://{host}") == 200
        try:
            async with PhoneServer(CalledBot("ws://127.0.0.1:1"), "::1") as on_ipv6:
                assert await self.status(on_ipv6, Origin=on_ipv6.url) == 200
                assert await self.status(on_ipv6, Host="::1") == 403
        except OSError:
            pytest.skip("this machine has no IPv6")

    async def test_a_page_has_one_call_at_a_time_and_its_own_recording(self, server) -> None:
        async with page_of(server.url) as page:
            for nonsense in ({"do": "call", "rate": 8009}, {"do": "call"}, {"do": "x"}, []):
                await page.socket.send_json(nonsense)
            for _ in range(2):
                await page.call()
                await page.order("call", rate=8000)
                await page.event("step")
                await page.order("hang up")
                await page.event("ended")
            first, last = (f"/recordings/{sid}.wav" for sid in page.all("calling", "call_sid"))
            assert await self.status(server, last) == 200
            assert await self.status(server, first) == 404
        async with asyncio.timeout(10):
            while await self.status(server, last) != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def test_a_call_is_ended_over_rest_by_its_account_only(self, server) -> None:
        other, key = "AC" + "1" * 32, "SK" + "0" * 32
        completed = {"Status": "completed"}
        async with page_of(server.url) as page, aiohttp.ClientSession() as session:

            async def post(login: tuple[str, str] | None, form: dict, account=ACCOUNT_SID):
                sid = page.all("calling", "call_sid")[-1]
                path = f"/2010-04-01/Accounts/{account}/Calls/{sid}.json"
                headers = {"Authorization": aiohttp.encode_basic_auth(*login)} if login else {}
                async with session.post(server.url + path, data=form, headers=headers) as response:
                    return response.status, (await response.json()).get("code")

            await page.call()
            for login in ((ACCOUNT_SID, "f" * 32), (other, TOKEN), (key, ""), None):
                assert await post(login, completed) == (401, 20003)
            for form in ({"Status": "busy"}, {}):
                assert await post((ACCOUNT_SID, TOKEN), form) == (400, 20001)
            assert await post((ACCOUNT_SID, TOKEN), completed, other) == (404, 20404)
            for login in ((ACCOUNT_SID, TOKEN), (key, "any secret")):
                if page.all("ended", "text"):
                    await page.call()
                assert await post(login, completed) == (200, None)
                assert (await page.event("ended"))["text"] == "The bot hung up."
                assert await post(login, completed) == (404, 20404)


class TestTheCommand:
    """That starts the phone, run in its own process."""

    async def test_it_starts_the_echo_bot_and_ends_with_it(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--port", "0", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(90):
                printed = (await process.stdout.readuntil(b"Ctrl+C")).decode()
            url, bot = re.search(r"The phone is at (\S+)/ and calls (\S+)/", printed).groups()
            assert f"base_url='{url}'" in printed
            async with page_of(url) as page:
                await page.call()
                assert await echo_comes_back(page)
                await page.order("press", key="#")
                assert (await page.event("ended"))["text"] == "The bot hung up."
        finally:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        host, port = bot.removeprefix("http://").split(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            (["localhost:8765"], "the bot's address must be ws(s)://... or http(s)://..."),
            (["ws://"], "the bot's address must be"),
            (["ws://localhost", "--parameter", "name"], "--parameter must be NAME=VALUE"),
            (["ws://localhost", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8766"),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments: list[str], fault: str) -> None:
        done = subprocess.run(
            [*COMMAND, *arguments], check=False, capture_output=True, text=True, env=ENVIRONMENT
        )
        assert done.returncode
        assert fault in done.stderr
