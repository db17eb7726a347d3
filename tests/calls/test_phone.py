"""Calls from the phone's server, which plays Twilio's part, without a browser."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import dialing
import numpy as np
import phone.call
import pytest
from aiohttp import web
from dialing import ACCOUNT_SID, CalledBot
from phone.server import PhoneServer
from phoning import (
    TOKEN,
    BotSide,
    Page,
    bot_that,
    closes_at_once,
    comes_back,
    page_of,
    page_to,
    phone_to,
    phone_to_echo_bot,
    sends_garbage,
    sends_nothing,
    speech,
)
from twilio.request_validator import RequestValidator

from pipecat_twilio import messages

STEP = b"\x01" * 160  # 20 ms of loud mu-law
ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "phone"]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("simulation", "examples"))
}


def audio(steps: int) -> dict[str, Any]:
    """Returns a message of audio for `BotSide.send`."""
    return {"event": "media", "media": {"payload": b64encode(STEP * steps).decode()}}


async def echo_comes_back(page: Page) -> bool:
    """Speaks until a piece of it comes back: a busy machine breaks up most pieces."""
    for _ in range(8):
        await page.say(bytes(8000) + speech() + bytes(8000))
        if comes_back(*await page.recording()):
            return True
    return False


class TestACallToTheEchoBot:
    """The bot checks signatures, opens the stream with TwiML, and hangs up over REST."""

    async def test_speech_comes_back_to_the_recording_and_to_the_page(self) -> None:
        async with phone_to_echo_bot() as phone, page_of(phone.url) as page:
            await page.call()
            assert await echo_comes_back(page)
            said, heard = (np.frombuffer(p, "<i2").astype(float) for p in (speech(), page.heard))
            assert comes_back(said[::2], heard[::2])
            await page.order("hang up")
            assert (await page.event("ended"))["text"] == "You hung up."

    async def test_keys_have_their_effect_without_a_warning(self) -> None:
        async with phone_to_echo_bot() as phone, page_of(phone.url) as page:
            await page.call()
            await page.order("press", key="7")
            assert (await page.event("mark"))["name"] == "key 7"
            await page.order("press", key="*")
            await page.event("clear")
            await page.order("press", key="#")
            assert (await page.event("ended"))["text"] == "The bot hung up."
            assert not page.all("warning", "text") + page.all("notice", "text")

    async def test_a_call_with_a_wrong_token_is_refused(self) -> None:
        async with phone_to_echo_bot() as phone:
            phone.bot = replace(phone.bot, auth_token="f" * 32)
            async with page_of(phone.url) as page:
                await page.order("call", rate=8000)
                assert "answered with status 403" in (await page.event("ended"))["text"]


async def test_webhook_and_stream_are_asked_as_twilio_asks() -> None:
    asked: list[tuple[dict, str]] = []
    calls: list[BotSide] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((dict(await request.post()), request.headers["X-Twilio-Signature"]))
        stream = '<Stream url="/ws"><Parameter name="guest" value="Ann &amp; Bo"/></Stream>'
        return web.Response(text=f"<Response><Connect>{stream}</Connect></Response>")

    async def talk(bot: BotSide) -> None:
        calls.append(bot)
        await bot.read("dtmf")
        await bot.send(event="mark", mark={"name": "said"})
        await bot.read("stop")

    numbers = {"caller": "+15005550009", "called": "+15005550008"}
    async with bot_that(talk, web.post("/voice", answer)) as stream:
        url = stream.replace("ws://", "http://").replace("/ws", "/voice")
        async with phone_to(url, auth_token=TOKEN, **numbers) as phone, page_of(phone.url) as page:
            await page.call()
            for key in ("", "12", "A", "#"):  # only the last one is a key of a telephone
                await page.order("press", key=key)
            await page.event("mark")
            await page.order("hang up")
            await page.event("ended")
    ((form, signature),) = asked
    assert RequestValidator(TOKEN).validate(url, form, signature)
    headers = calls[0].request.headers
    assert RequestValidator(TOKEN).validate(stream, {}, headers["X-Twilio-Signature"])
    assert "Sec-WebSocket-Extensions" not in headers  # as Twilio, no compression
    sent = calls[0].messages
    start = sent[1]["start"]
    assert start["customParameters"] == {"guest": "Ann & Bo"}
    assert form["CallSid"] == start["callSid"]
    assert form["AccountSid"] == start["accountSid"] == ACCOUNT_SID
    assert (form["From"], form["To"]) == ("+15005550009", "+15005550008")
    assert [m["dtmf"]["digit"] for m in sent if m["event"] == "dtmf"] == ["#"]
    kinds = [type(messages.parse(json.dumps(message))).__name__ for message in sent]
    assert [*kinds[:3], kinds[-1]] == ["Connected", "Start", "Media", "Stop"]


class TestOneCall:
    """Between a page and a scripted bot."""

    async def test_the_recording_has_the_caller_left_and_the_bot_right(self) -> None:
        async def talk(bot: BotSide) -> None:
            await bot.send(**audio(3))
            await bot.send(event="mark", mark={"name": "played"})
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            await page.event("mark")
            while (await page.event("step"))["bot"] is not None:
                pass
            caller, bot = await page.recording()
        assert not caller.any()
        assert np.count_nonzero(bot) == 3 * len(STEP)

    async def test_a_recording_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(phone.call, "MAX_RECORDED", 800)
        async with page_to(sends_nothing) as page:
            await page.call()
            await page.steps(10)
            assert len((await page.recording())[0]) == 800

    async def test_a_clear_silences_within_one_message(self) -> None:
        async def talk(bot: BotSide) -> None:
            await bot.send(**audio(500))
            await bot.send(event="mark", mark={"name": "unheard"})
            await bot.read("dtmf")
            await bot.send(event="clear")
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            while (await page.event("step"))["bot"] is None:
                pass
            await page.order("press", key="1")
            await page.event("clear")
            _, *after = await page.steps(5)
            assert [step["bot"] for step in after] == [None] * 4  # the first one had begun before
            assert page.all("mark", "name") == ["unheard"]

    async def test_audio_that_the_page_sends_too_fast_does_not_delay_the_caller(self) -> None:
        async with page_to(sends_nothing) as page:
            await page.call()
            for _ in range(50):
                await page.socket.send_bytes(b"\x00\x20" * (Page.RATE // 50))
            await page.steps(60)
            caller, _ = await page.recording()
        assert 0 < np.count_nonzero(caller) <= 8000 * 0.2

    async def test_each_warning_has_twilios_number_and_is_sent_once(self) -> None:
        async def talk(bot: BotSide) -> None:
            await bot.read("start")
            for _ in range(3):
                await bot.socket.send_bytes(STEP)
                await bot.send(event="media", media={"payload": "not base64"})
            for secs in (250, 250, 101, 1):  # Twilio keeps 600
                await bot.send(**audio(50 * secs))
            await bot.send(event="clear")
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            await page.event("clear")
            assert page.all("warning", "code") == [31950, 31951, 31931]

    async def test_a_gap_in_the_bots_speech_is_reported(self) -> None:
        async def talk(bot: BotSide) -> None:
            for name in ("one", "two"):
                await bot.send(**audio(5))
                await bot.send(event="mark", mark={"name": name})
                await bot.read("mark")
                for _ in range(10):
                    await bot.read("media")
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            gap = await page.event("gap")
            assert 100 < gap["ms"] < 1000  # 200 on a machine that keeps up
            assert (gap["count"], gap["sum_ms"]) == (1, gap["ms"])

    @pytest.mark.parametrize("rate", [8000, 11025, 48000, 191_975])
    async def test_a_page_may_have_any_rate_of_a_browser(self, rate: int) -> None:
        async with page_to(sends_nothing) as page:
            await page.order("call", rate=rate)
            await page.steps(50)
            # A step whose number of samples is not whole has one more or one less.
            assert abs(len(page.heard) - 2 * rate) <= 2 * (rate // 50 + 1)


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
