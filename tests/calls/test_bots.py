"""The examples' bots, called the way Twilio calls."""

import asyncio
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import fastapi_bot
import local_services
import numpy as np
import pytest
import uvicorn
from caller import WireLog, place_call
from dialing import ACCOUNT_SID
from listening import SPEECH, audio_in, compare, play
from local_services import sentence, stand_in
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
        stand_ins = Path(local_services.__file__)
        values = dict(zip(VARIABLES, (*"xx", ACCOUNT_SID, TOKEN), strict=True))
        environment = without_variables(**values, PYTHONPATH=str(stand_ins.parent))
        log = WireLog()

        def said(sentences: int) -> Iterator[bytes]:
            """Yields silence until the bot has said so much, and for another second."""
            samples = sum(len(sentence(8000, number)) for number in range(sentences))
            for _ in range(50 * 60):
                if sum(len(piece) for _, piece in audio_in(log.received)) >= samples:
                    break
                yield audio.silence_frame()
            yield from [audio.silence_frame()] * 50

        async with api.serve() as base_url:
            bot = await asyncio.create_subprocess_exec(
                *(sys.executable, stand_ins, base_url, EXAMPLES / "bot.py"),
                *("-t", "twilio", "--port", str(port)),
                env=environment,
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

    def test_it_says_which_variables_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.environ", without_variables(OPENAI_API_KEY="x"))
        for name, module in stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)
        missing = "DEEPGRAM_API_KEY, TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN"
        with pytest.raises(SystemExit, match=f"Please set {missing}\\."):
            runpy.run_path(str(EXAMPLES / "bot.py"), run_name="__main__")


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


async def test_the_echo_bot_is_heard_interrupted_and_hangs_up(echo_bot, api) -> None:
    words = Say(SPEECH, FRAMES[:60])
    # A process that is new to it takes a while to answer.
    first, interrupt = (Dtmf("1"), WaitFor("mark", 20)), (Dtmf("*"), WaitFor("clear", 20))
    steps = [*first, words, *interrupt, words, Dtmf("#"), Wait(20)]
    async with echo_bot() as webhook:
        log, result = await place_call(webhook, Scenario("speak, interrupt, speak on", steps))
    assert result.closed_by == "agent"
    assert api.ended == {result.identity.call_sid: 1}
    assert result.marks_received == ["key 1", "key *", "key #"]
    assert not result.violations
    cleared = next(at for at, message in log.received if message["event"] == "clear")
    back = sum(len(piece) for at, piece in audio_in(log.received) if at > cleared)
    assert back > 60 * 160 - 800  # all but less than a message and the last caller's message


OTHER = {"streamSid": "MZ1", "callSid": "CA" + "2" * 32, "accountSid": "AC1"}


class TestWhoIsServed:
    """Only Twilio is served unless anyone is allowed, and other requests cost little."""

    def run_as_script(self, monkeypatch, *options: str, **variables: str) -> dict[str, Any]:
        """Runs the script as far as the server; returns the settings and the server's options."""
        served: dict[str, Any] = {}
        monkeypatch.setattr(uvicorn, "run", lambda _, **options: served.update(options))
        monkeypatch.setattr("gc.freeze", lambda: None)
        monkeypatch.setattr("gc.set_threshold", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["echo_bot.py", *options])
        monkeypatch.setattr("os.environ", without_variables(**variables))
        script = runpy.run_path(str(EXAMPLES / "echo_bot.py"), run_name="__main__")
        return served | {"settings": script["settings"]}

    def test_it_needs_to_check_signatures_or_serves_loopback_and_cannot_end_calls(
        self, monkeypatch
    ) -> None:
        for known in ({"PUBLIC_URL": PUBLIC_URL}, {"TWILIO_AUTH_TOKEN": TOKEN}):
            with pytest.raises(SystemExit, match=r"PUBLIC_URL and TWILIO_AUTH_.* --allow-anyone"):
                self.run_as_script(monkeypatch, **known)
        logins = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT_SID}
        served = self.run_as_script(monkeypatch, "--allow-anyone", **logins)
        assert (served["settings"].account_sid, served["settings"].auth_token) == ("", "")
        assert served["host"] == "127.0.0.1"

    async def test_a_signed_webhook_leads_to_a_stream_that_names_the_call(self, echo_bot) -> None:
        form = {"CallSid": CALL_SID}
        signed = RequestValidator(TOKEN).compute_signature(f"{PUBLIC_URL}/", form)
        stream = f'<Stream url="wss://bot.example.com/stream/{CALL_SID}"/>'
        async with echo_bot(**SIGNED) as webhook, aiohttp.ClientSession() as session:
            for signature, status in ((signed, 200), ("", 403), ("bm90IGEgc2lnbmF0dXJl", 403)):
                headers = {"X-Twilio-Signature": signature}
                async with session.post(webhook, data=form, headers=headers) as response:
                    assert response.status == status
                    assert (stream in await response.text()) == (status == 200)

    @pytest.mark.parametrize(
        "first",
        [
            [],
            ["{"],
            [{"event": "connected"}, {"event": "stop"}],
            [{"event": "connected"}, {"event": "start", "streamSid": "MZ1", "start": OTHER}],
        ],
    )
    async def test_only_the_signed_calls_stream_is_taken_if_it_starts_as_documented(
        self, echo_bot, first: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("echo_bot.HANDSHAKE_SECS", 60 if first else 0.1)
        path = f"/stream/{CALL_SID}"
        signed = RequestValidator(TOKEN).compute_signature(f"wss://bot.example.com{path}", {})
        async with echo_bot(**SIGNED) as webhook, aiohttp.ClientSession(webhook) as session:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(path)
            headers = {"X-Twilio-Signature": signed}
            async with session.ws_connect(path, headers=headers) as socket:
                for message in first:
                    await socket.send_json(message)
                await socket.receive(timeout=20)
                assert socket.close_code == 1008
