"""The transport over a real socket, with real stalls; the caller has a thread of its own."""

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import EndFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport

RATE = 8000
SENTENCE = TTSAudioRawFrame(b"\x10\x10" * round(1.6 * RATE), RATE, 1)


async def keep_stalling() -> None:
    """Holds the event loop up for 120 ms, twice a second."""
    while True:
        await asyncio.sleep(0.38)
        time.sleep(0.12)  # noqa: ASYNC251  # that is the point


def caller(url: str) -> list[tuple[float, dict[str, Any]]]:
    """Calls, and returns what came when, until the bot hangs up."""

    async def call() -> list[tuple[float, dict[str, Any]]]:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            return [(time.monotonic(), json.loads(message.data)) async for message in socket]

    return asyncio.run(call())


@asynccontextmanager
async def serving(transport: Any, **options: Any) -> AsyncIterator[str]:
    """Serves a bot that says a sentence and hangs up; the options are uvicorn's."""
    app = FastAPI()

    @app.websocket("/")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        no_rest = TwilioFrameSerializer.InputParams(auto_hang_up=False)
        params = FastAPIWebsocketParams(
            audio_out_enabled=True, serializer=TwilioFrameSerializer("MZ1", params=no_rest)
        )
        phone = transport(websocket, params)
        worker = PipelineWorker(
            Pipeline([phone.input(), phone.output()]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await worker.queue_frames([SENTENCE, TTSStoppedFrame()])
        await worker.queue_frame(EndFrame())
        await running

    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off", **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    await task


def silence_secs(came: list[tuple[float, dict[str, Any]]], words_secs: float) -> float:
    """Returns how much silence a caller hears before so much speech has been played."""
    played_until, silence, heard = came[0][0], 0.0, 0.0
    for at, message in came:
        if message["event"] == "media" and heard < words_secs:
            silence += max(0, at - played_until)
            secs = len(b64decode(message["media"]["payload"])) / 8000
            played_until = max(played_until, at) + secs
            heard += secs
    assert heard > words_secs - 0.001, f"{heard} s of {words_secs} came"
    return silence


async def call_with_stalls(transport: Any) -> list[tuple[float, dict[str, Any]]]:
    async with serving(transport) as url:
        stalling = asyncio.create_task(keep_stalling())
        came = await asyncio.to_thread(caller, url)
        stalling.cancel()
        return came


async def test_a_late_event_loop_is_not_heard() -> None:
    # A machine that several use may be late itself, by more than the lead: so three tries.
    for _ in range(3):
        came = await call_with_stalls(TwilioTransport)
        if silence_secs(came, 1.6) == 0:
            return
    pytest.fail(f"{silence_secs(came, 1.6)} s of silence")


async def test_with_pipecats_transport_it_is_heard() -> None:
    assert silence_secs(await call_with_stalls(FastAPIWebsocketTransport), 1.6) > 0.1


@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio"])
async def test_a_goodbye_longer_than_the_ping_timeout_is_heard_to_its_end(ws: str) -> None:
    pings = {"ws": ws, "ws_ping_interval": 0.2, "ws_ping_timeout": 0.4}
    async with serving(TwilioTransport, **pings) as url:
        came = await asyncio.to_thread(caller, url)
    assert silence_secs(came, 1.6) < 0.5
    assert came[-1][0] - came[0][0] > 1.05  # sent while it is played, but for the lead
