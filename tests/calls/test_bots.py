"""The examples' bots, called the way Twilio calls."""

import asyncio
import os
import runpy
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import fastapi_bot
import numpy as np
import pytest
import uvicorn
from caller import WireLog, place_call
from dialing import ACCOUNT_SID
from echo_bot import Settings, create_app
from listening import SPEECH, audio_in, compare, play
from local_services import sentence
from serving import serve, wait_until_served
from streamdouble import audio
from streamdouble.scenario import Dtmf, Say, Scenario, Wait, WaitFor
from twilio.request_validator import RequestValidator

from pipecat_twilio import TwilioFrameSerializer

TOKEN = "0123456789abcdef0123456789abcdef"
CALL_SID = "CA" + "1" * 32
PUBLIC_URL = "https://bot.example.com"
SIGNED = {"auth_token": TOKEN, "public_url": PUBLIC_URL}
EXAMPLES = Path(fastapi_bot.__file__).parent
FRAMES = audio.wav_to_ulaw_frames(SPEECH)
QUESTION = Say(SPEECH, FRAMES[44:86])
VARIABLES = ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")


def without_variables(**others: str) -> dict[str, str]:
    """Returns the environment without what the bots read."""
    kept = {k: v for k, v in os.environ.items() if k not in (*VARIABLES, "PUBLIC_URL")}
    return kept | others


class TestTheBot:
    """examples/bot.py, on Pipecat's development runner."""

    async def test_it_greets_answers_and_hangs_up_when_asked_to(self, api) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        stand_ins = Path(sys.modules["local_services"].__file__)
        values = (*"xx", ACCOUNT_SID, TOKEN)
        environment = without_variables(**dict(zip(VARIABLES, values, strict=True)))
        log = WireLog()

        def sent_by_bot() -> bytes:
            return b"".join(piece for _, piece in audio_in(log.received))

        def said(sentences: int) -> Iterator[bytes]:
            """Yields silence until the bot has said so much, and for another second."""
            samples = sum(len(sentence(8000, number)) for number in range(sentences))
            for _ in range(50 * 60):
                if len(sent_by_bot()) >= samples:
                    break
                yield audio.silence_frame()
            yield from [audio.silence_frame()] * 50

        async with api.serve() as base_url:
            bot = await asyncio.create_subprocess_exec(
                *(sys.executable, stand_ins, base_url, EXAMPLES / "bot.py"),
                *("-t", "twilio", "--port", str(port)),
                env=environment | {"PYTHONPATH": str(stand_ins.parent)},
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            try:
                await wait_until_served(f"http://127.0.0.1:{port}/")
                turns = [Say(SPEECH, said(1)), QUESTION, Say(SPEECH, said(2)), QUESTION, Wait(60)]
                url, talk = f"ws://127.0.0.1:{port}/ws", Scenario("ask twice", turns)
                _, result = await place_call(url, talk, log=log)
            finally:
                bot.terminate()
                await bot.wait()
        assert api.ended == {result.identity.call_sid: 1}
        assert result.closed_by == "agent"
        played = play(log.received, log.sent[0][0], log.sent[-1][0] + 5)
        sounding = np.flatnonzero(played.is_playing) / 8000
        begins = sounding[np.diff(sounding, prepend=-1) > 0.8]
        assert len(begins) == 3  # the greeting, an answer, and goodbye
        for words, begin in enumerate(begins):
            heard = compare(sentence(8000, words), played, begin)
            assert heard.lost_ms + heard.cut_ms == 0

    @pytest.mark.parametrize("given", [(), VARIABLES[:1], VARIABLES[1:]])
    def test_it_says_which_variables_are_missing(
        self, given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from local_services import stand_in

        for name in VARIABLES:
            monkeypatch.setenv(name, "x" if name in given else "")
        for name, module in stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(EXAMPLES / "bot.py"), run_name="__main__")
        missing = [name for name in VARIABLES if name not in given]
        assert left.value.code == f"Please set {', '.join(missing)}."


async def test_the_fastapi_bot_is_called_and_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", ACCOUNT_SID)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(TwilioFrameSerializer, "_hang_up_call", lambda _: asyncio.sleep(0))
    scenario = Scenario("speak", [Say(SPEECH, FRAMES[:60])])
    async with serve(fastapi_bot.app) as port, aiohttp.ClientSession() as session:
        async with session.post(f"http://127.0.0.1:{port}/") as response:
            assert f'<Stream url="wss://127.0.0.1:{port}/stream"/>' in await response.text()
        log, _ = await place_call(f"ws://127.0.0.1:{port}/stream", scenario)
    assert sum(len(piece) for _, piece in audio_in(log.received)) >= 160 * 58


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
async def test_the_echo_bot_is_heard_interrupted_and_hangs_up(echo_bot, api, rate: int) -> None:
    scenario = Scenario(
        "speak, interrupt the echo, speak on, hang up",
        [
            Dtmf("123"),
            WaitFor("mark", timeout_s=20),  # a process that is new to it takes a while to answer
            Say(SPEECH, FRAMES[:60]),
            Dtmf("*"),
            WaitFor("clear", timeout_s=20),
            Say(SPEECH, FRAMES[:60]),
            Dtmf("#"),
            Wait(20),
        ],
    )
    async with echo_bot(sample_rate=rate) as webhook:
        log, result = await place_call(webhook, scenario)
    assert result.closed_by == "agent"
    assert api.ended == {result.identity.call_sid: 1}
    assert result.marks_received == [f"key {key}" for key in "123*#"]
    assert not result.violations
    hung_up = next(at for at, m in log.sent if m.get("dtmf", {}).get("digit") == "#")
    sent = sum(len(piece) for _, piece in audio_in(log.sent, hung_up))
    received = sum(len(piece) for _, piece in audio_in(log.received))
    # What was on its way is lost to the interruption, and less than a message at the end.
    assert 0 <= (sent - received) / 8 <= 100 + ahead_at_clear_ms(log.received)


def ahead_at_clear_ms(received: list[tuple[float, dict[str, Any]]]) -> float:
    """Returns how much Twilio had in its buffer when it was told to clear it."""
    ends = 0.0
    for at, message in received:
        if message["event"] == "media":
            ends = max(ends, at) + len(b64decode(message["media"]["payload"])) / 8000
        elif message["event"] == "clear":
            return 1000 * max(0.0, ends - at)
    raise AssertionError("there was no clear")


class TestWhoIsServed:
    """Only Twilio is served unless anyone is allowed, and other requests cost little."""

    @pytest.mark.parametrize("known", [{}, {"public_url": PUBLIC_URL}, {"auth_token": TOKEN}])
    def test_without_what_it_needs_to_check_signatures_the_bot_does_not_start(self, known) -> None:
        with pytest.raises(ValueError, match="PUBLIC_URL and TWILIO_AUTH_TOKEN"):
            create_app(Settings(**known))
        create_app(Settings(**known, allow_anyone=True))

    def run_as_script(self, monkeypatch, *options: str, **variables: str) -> dict[str, Any]:
        """Runs the script as far as the server; returns the settings and the server's options."""
        served: dict[str, Any] = {}
        monkeypatch.setattr(uvicorn, "run", lambda _, **options: served.update(options))
        for name in ("freeze", "set_threshold"):
            monkeypatch.setattr(f"gc.{name}", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["echo_bot.py", *options])
        monkeypatch.setattr("os.environ", without_variables(**variables))
        script = runpy.run_path(str(EXAMPLES / "echo_bot.py"), run_name="__main__")
        return served | {"settings": script["settings"]}

    def test_the_command_line_says_how_to_serve_anyone(self, monkeypatch) -> None:
        with pytest.raises(SystemExit, match="--allow-anyone serves without"):
            self.run_as_script(monkeypatch)

    @pytest.mark.parametrize("anyone", [True, False])
    def test_serving_anyone_is_on_loopback_only_and_cannot_end_calls(
        self, monkeypatch: pytest.MonkeyPatch, anyone: bool
    ) -> None:
        variables = {
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        }
        options = ["--allow-anyone"] if anyone else []
        served = self.run_as_script(monkeypatch, *options, **variables)
        settings = served["settings"]
        assert settings.auth_token == ("" if anyone else TOKEN)
        assert settings.account_sid == ("" if anyone else ACCOUNT_SID)
        assert served["host"] == ("127.0.0.1" if anyone else "0.0.0.0")
        assert served["ws_per_message_deflate"] is False

    async def test_a_long_form_is_not_read_to_its_end(self, echo_bot) -> None:
        sent = 0

        async def endless():
            nonlocal sent
            for _ in range(10_000):
                sent += 65536
                yield b"a=" + bytes(65534)

        async with echo_bot(**SIGNED) as webhook, aiohttp.ClientSession() as session:
            try:
                async with session.post(
                    webhook, data=endless(), headers={"Content-Type": "multipart/form-data"}
                ) as response:
                    assert response.status == 413
            except aiohttp.ClientConnectionError:
                pass  # the server has answered and closed while this one was still sending
        assert sent < 50 * 1024 * 1024  # what sockets hold, not the 625 MiB that were offered

    async def post(self, webhook: str, signature: str | None) -> tuple[int, str]:
        headers = {} if signature is None else {"X-Twilio-Signature": signature}
        async with (
            aiohttp.ClientSession() as session,
            session.post(webhook, data={"CallSid": CALL_SID}, headers=headers) as response,
        ):
            return response.status, await response.text()

    async def test_a_signed_webhook_leads_to_a_stream_that_names_the_call(self, echo_bot) -> None:
        validator = RequestValidator(TOKEN)
        signature = validator.compute_signature(f"{PUBLIC_URL}/", {"CallSid": CALL_SID})
        async with echo_bot(**SIGNED) as webhook:
            status, twiml = await self.post(webhook, signature)
            assert status == 200
            assert f'<Stream url="wss://bot.example.com/stream/{CALL_SID}"/>' in twiml
            for wrong in (None, "", "bm90IGEgc2lnbmF0dXJl"):
                assert (await self.post(webhook, wrong))[0] == 403

    async def test_a_stream_is_for_the_call_that_twilio_signed(self, echo_bot) -> None:
        url = f"wss://bot.example.com/stream/{CALL_SID}"
        signature = RequestValidator(TOKEN).compute_signature(url, {})
        start = {"streamSid": "MZ1", "callSid": "CA" + "2" * 32, "accountSid": "AC1"}
        async with echo_bot(**SIGNED) as webhook, aiohttp.ClientSession() as session:
            local = f"{webhook.replace('http', 'ws')}stream/{CALL_SID}"
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await session.ws_connect(local)
            assert error.value.status == 403
            headers = {"X-Twilio-Signature": signature}
            async with session.ws_connect(local, headers=headers) as socket:
                await socket.send_json({"event": "connected"})
                await socket.send_json({"event": "start", "streamSid": "MZ1", "start": start})
                await socket.receive(timeout=20)
                assert socket.close_code == 1008

    @pytest.mark.parametrize(
        "first",
        [
            [],
            ["{"],
            ["\x00"],
            ['{"event": "media"}'],
            ['{"event": "connected"}', '{"event": "stop"}'],
            ['{"event": "stop"}', '{"event": "connected"}'],
        ],
    )
    async def test_a_stream_that_does_not_start_as_documented_is_closed(
        self, echo_bot, first: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("echo_bot.HANDSHAKE_SECS", 60 if first else 0.1)
        async with echo_bot() as webhook, aiohttp.ClientSession() as session:
            url = f"{webhook.replace('http', 'ws')}stream/{CALL_SID}"
            async with session.ws_connect(url) as socket:
                for text in first:
                    await socket.send_str(text)
                await socket.receive(timeout=20)
                assert socket.close_code == 1008

    @pytest.mark.parametrize("last", [b"", b"{", b"\xff"])
    async def test_whoever_leaves_early_is_no_error_of_the_server(
        self, echo_bot, last, capsys
    ) -> None:
        async with echo_bot() as webhook, aiohttp.ClientSession() as session:
            url = f"{webhook.replace('http', 'ws')}stream/{CALL_SID}"
            async with session.ws_connect(url) as socket:
                await socket.send_json({"event": "connected"})
                if last:
                    await socket.send_frame(last, aiohttp.WSMsgType.TEXT)
            _, form = await asyncio.open_connection("127.0.0.1", int(webhook.split(":")[2][:-1]))
            form.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nCallSid")
            await form.drain()
            await asyncio.sleep(0.1)  # the server has begun to read it
            form.close()
            await form.wait_closed()
        assert "Exception in ASGI application" not in capsys.readouterr().err
