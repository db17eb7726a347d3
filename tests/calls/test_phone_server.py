"""Who may use the phone, and the command that starts it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import dialing
import echo_bot
import pytest
from dialing import ACCOUNT_SID, CalledBot
from phone.server import PhoneServer
from phoning import TOKEN, bot_that, page_of, sends_nothing


class TestWhoMayUseIt:
    """Only this machine, only the page that it serves, and the bot that ends its call."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[PhoneServer]:
        async with (
            bot_that(sends_nothing) as url,
            PhoneServer(CalledBot(url, auth_token=TOKEN)) as server,
        ):
            yield server

    async def status(self, server: PhoneServer, path: str = "/", **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(server.url + path, headers=headers) as response,
        ):
            return response.status

    async def test_a_page_and_its_files_load_nothing_from_elsewhere(self, server) -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/page.css", "/page.js", "/speech.wav"):
                async with session.get(server.url + path) as response:
                    policy = response.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'; script-src 'self';")
                    assert b"http" not in await response.read()

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            *(("/", {"Host": host}) for host in ("evil.example", "127.0.0.1:1", "")),
            *(("/speech.wav", {"Origin": o}) for o in ("http://evil.example", "null")),
            *(("/page", headers) for headers in ({"Origin": "http://evil.example"}, {})),
        ],
    )
    async def test_another_host_or_origin_is_refused(self, server, path, headers) -> None:
        host = server.url.replace("http://127.0.0.1", "localhost")
        assert await self.status(server, Host=host, Origin=f"http://{host}") == 200
        assert await self.status(server, path, **headers) == 403

    async def test_a_page_has_one_call_at_a_time_and_its_own_recording(self, server) -> None:
        async with page_of(server.url) as page:
            for nonsense in ({"do": "call"}, {"do": "x"}, []):
                await page.socket.send_json(nonsense)
            for _ in range(2):
                await page.call()
                await page.order("call", rate=8000)
                await page.event("step")
                await page.hang_up()
            first, last = (f"/recordings/{sid}.wav" for sid in page.all("calling", "call_sid"))
            assert await self.status(server, last) == 200
            assert await self.status(server, first) == 404
        async with asyncio.timeout(10):
            while await self.status(server, last) != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @pytest.mark.parametrize("login", [(ACCOUNT_SID, TOKEN), ("SK" + "0" * 32, "any secret")])
    async def test_a_call_is_ended_over_rest_by_its_account_only(self, server, login) -> None:
        other = "AC" + "1" * 32
        async with page_of(server.url) as page, aiohttp.ClientSession(server.url) as session:
            await page.call()
            (sid,) = page.all("calling", "call_sid")
            for user, account, status, answer in (
                ((ACCOUNT_SID, "f" * 32), ACCOUNT_SID, "completed", 401),
                ((other, TOKEN), ACCOUNT_SID, "completed", 401),
                (login, ACCOUNT_SID, "busy", 400),
                (login, other, "completed", 404),
                (login, ACCOUNT_SID, "completed", 200),
                (login, ACCOUNT_SID, "completed", 404),
            ):
                path = f"/2010-04-01/Accounts/{account}/Calls/{sid}.json"
                headers = {"Authorization": aiohttp.encode_basic_auth(*user)}
                form = {"Status": status}
                async with session.post(path, data=form, headers=headers) as response:
                    assert response.status == answer
            assert (await page.event("ended"))["text"] == "The bot hung up."


async def test_the_command_starts_the_echo_bot_and_ends_with_it() -> None:
    folders = (Path(module.__file__).parent for module in (dialing, echo_bot))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "phone", "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        # A shell has its background jobs ignore SIGINT, and so what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        async with asyncio.timeout(90):
            printed = (await process.stdout.readuntil(b"Ctrl+C")).decode()
        url, bot = re.search(r"The phone is at (\S+)/ and calls (\S+)/", printed).groups()
        assert f"base_url='{url}'" in printed
        async with page_of(url) as page:
            await page.call()
            for key, event in (("7", "mark"), ("*", "clear"), ("#", "ended")):
                await page.order("press", key=key)
                await page.event(event)
            assert page.all("mark", "name")[0] == "key 7"
            assert page.all("ended", "text") == ["The bot hung up."]
            assert not page.all("warning", "text") + page.all("notice", "text")
    finally:
        process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        assert await process.wait() == 0
    host, port = bot.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
