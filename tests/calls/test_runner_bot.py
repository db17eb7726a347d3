"""The example bot on Pipecat's development runner, called the way Twilio calls."""

import sys
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket
from phoning import EXAMPLES
from pipecat.runner.types import WebSocketRunnerArguments
from streamdouble import audio
from streamdouble.scenario import Dtmf, Say, Scenario, Wait

from pipecat_twilio import uninstall


@pytest.fixture
def runner_bot(call, monkeypatch: pytest.MonkeyPatch):
    """The module examples/runner_bot.py, which installs this package when it is imported."""
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", call.ACCOUNT_SID)
    monkeypatch.setenv("TWILIO_API_KEY", call.KEY_SID)
    monkeypatch.setenv("TWILIO_API_SECRET", call.KEY_SECRET)
    import runner_bot

    yield runner_bot
    uninstall()
    sys.modules.pop("runner_bot", None)


async def test_a_call_is_echoed_by_what_create_transport_builds(
    call, runner_bot, log: list[str]
) -> None:
    from caller import place_stream_call, serve

    app = FastAPI()

    @app.websocket("/ws")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        await runner_bot.bot(WebSocketRunnerArguments(websocket=websocket))

    # The API of its own knows that the call was ended.
    api = call.RestApi()
    async with api.serve() as base_url:
        runner_bot.install(base_url=base_url)
        speech = audio.wav_to_ulaw_frames(EXAMPLES / "speech.wav")[:60]
        script = Scenario("speak, hang up", [Say(Path("-"), speech), Wait(0.5), Dtmf("#"), Wait(5)])
        async with serve(app) as port:
            _, result = await place_stream_call(f"ws://127.0.0.1:{port}/ws", script)
    assert len(result.audio_received) >= 160 * 60
    assert result.identity.call_sid in api.ended
    assert any("TwilioFrameSerializer is now pipecat_twilio's" in line for line in log)
