"""How calls end over real sockets: one report each, whoever ends it, and nothing left behind."""

import asyncio
import gc
import json
from collections import Counter
from random import Random
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import EndFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner
from serving import serve
from streams import documented, media

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport

STOP = json.dumps(documented("stop"))

# What ends the call, `ended_by` of its report, and whether the call is ended over REST.
ENDS = {
    "the caller hangs up": ("stop", False),
    "the caller hangs up twice, and a message follows": ("stop", False),
    "the socket is closed": ("disconnect", True),
    "the connection breaks": ("disconnect", True),
    "the bot ends it": ("EndFrame", True),
    "the bot cancels it": ("CancelFrame", True),
    "the caller leaves in the goodbye": ("stop", False),
    "the bot hands it off": ("hand_off()", False),
}


class Recording(TwilioFrameSerializer):
    """Counts its reports and its requests."""

    def __init__(self, end: str, callback: str) -> None:
        async def on_call_report(report: Any) -> None:
            self.reports.append(report.ended_by)
            if callback == "raises":
                raise ValueError(end)
            if callback == "never returns":
                await asyncio.Event().wait()

        super().__init__(
            "MZ1",
            *("CA1", "AC1", "token"),
            params=self.InputParams(on_call_report=on_call_report, hang_up_timeout_secs=0.2),
        )
        self.reports: list[str] = []
        self.requests = 0

    async def _hang_up_call(self) -> None:
        self.requests += 1


def app_of(calls: dict[str, tuple[str, Recording]], random: Random) -> FastAPI:
    """Returns an app whose bot says a goodbye of 60 s, and takes part in ending the call."""
    app = FastAPI()

    @app.websocket("/{number}/{end}")
    async def stream(websocket: WebSocket, number: str, end: str) -> None:
        await websocket.accept()
        serializer = Recording(end, random.choice(["returns", "raises", "never returns"]))
        calls[number] = end, serializer
        params = FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
        )
        transport = TwilioTransport(websocket, params)
        worker = PipelineWorker(
            Pipeline([transport.input(), transport.output()]),
            params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
            enable_rtvi=False,
            idle_timeout_secs=None,
        )

        @transport.event_handler("on_client_disconnected")
        async def on_client_disconnected(*_: Any) -> None:
            await worker.cancel()

        @transport.event_handler("on_client_connected")
        async def on_client_connected(*_: Any) -> None:
            secs = 0.1 if end == "the bot ends it" else 60
            pcm = b"\x10\x10" * round(secs * 8000)
            await worker.queue_frames([TTSAudioRawFrame(pcm, 8000, 1), TTSStoppedFrame()])
            if end in ("the bot ends it", "the caller leaves in the goodbye"):
                await worker.queue_frame(EndFrame())
            elif end == "the bot cancels it":
                await worker.cancel()
            elif end == "the bot hands it off":
                serializer.hand_off()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    return app


async def caller(url: str, end: str) -> None:
    """Calls, and ends the call if that is the caller's part."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_str(media(bytes(160)))
        if end not in ("the bot ends it", "the bot cancels it"):
            await socket.receive()  # the bot speaks
            if end == "the connection breaks":
                await session.connector.close()
                return
            if end != "the socket is closed":
                await socket.send_str(STOP)
            if "twice" in end:
                await socket.send_str(STOP)
                await socket.send_str(media(bytes(160)))
            await socket.close()
        async for _ in socket:  # until the bot has closed it
            pass


@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio"])
async def test_each_of_200_calls_is_reported_once_and_leaves_nothing_behind(ws: str) -> None:
    logger.disable("pipecat")
    random, calls = Random(1), {}
    gc.collect()
    before = Counter(type(each).__name__ for each in gc.get_objects())
    async with serve(app_of(calls, random), ws=ws) as port:
        tasks = len(asyncio.all_tasks())
        for batch in range(10):
            ends = random.choices(list(ENDS), k=20)
            urls = [
                f"http://127.0.0.1:{port}/{batch}-{i}/{end.replace(' ', '%20')}"
                for i, end in enumerate(ends)
            ]
            async with asyncio.timeout(60):
                await asyncio.gather(*map(caller, urls, ends))
                while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110  # has no event
                    await asyncio.sleep(0.02)
    logger.enable("pipecat")
    assert len(calls) == 200
    for end, serializer in calls.values():
        ended_by, is_ended = ENDS[end]
        assert (end, serializer.reports, serializer.requests) == (end, [ended_by], int(is_ended))
    del serializer
    calls.clear()
    gc.collect()
    after = Counter(type(each).__name__ for each in gc.get_objects())
    for kind in ("Recording", "TwilioTransport", "TwilioOutputTransport", "TwilioInputTransport"):
        assert after[kind] <= before[kind], kind
