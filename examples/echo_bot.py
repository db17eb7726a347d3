"""A phone bot that repeats what it hears: Pipecat, FastAPI and this package.

Keys: `*` interrupts the bot, `#` has it hang up; every key is answered with a Twilio mark.

For a local try, `python examples/echo_bot.py --allow-anyone` serves anyone on this machine, and
ends no calls at Twilio. To answer real calls, point a number's voice webhook at PUBLIC_URL/ and set

    PUBLIC_URL          where Twilio reaches this server, such as https://bot.example.com
    TWILIO_AUTH_TOKEN   signs Twilio's requests; without these two the bot does not start
    TWILIO_ACCOUNT_SID  ends calls, together with the token, or with an API key:
    TWILIO_API_KEY      and TWILIO_API_SECRET
    TWILIO_REGION       and TWILIO_EDGE, if the account is not in the default region
    PORT                to listen on; 8765 by default
"""

import argparse
import asyncio
import gc
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import quoteattr

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from loguru import logger
from pipecat.frames.frames import (
    EndWorkerFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_transport import BaseTransport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.websockets import WebSocketDisconnect

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport, is_valid_signature, messages

POLICY_VIOLATION = 1008  # WebSocket close code; RFC 6455, section 7.4.1
HANDSHAKE_SECS = 5
MAX_FORM_BYTES = 16384  # of a webhook: Twilio's have about 1 KB


@dataclass(frozen=True)
class Settings:
    """The bot's configuration."""

    account_sid: str = ""
    auth_token: str = field(default="", repr=False)
    api_key_sid: str = ""
    api_key_secret: str = field(default="", repr=False)
    region: str = ""
    edge: str = ""
    base_url: str = ""
    public_url: str = ""
    allow_anyone: bool = False
    sample_rate: int = 16000
    end_silence_secs: int = 2
    output_ms: int = 40  # of audio in a message: half as many frames as Twilio sends
    serializer: type = TwilioFrameSerializer
    transport: type[BaseTransport] = TwilioTransport

    @classmethod
    def from_environment(cls) -> "Settings":
        """Reads the variables named at the top of this file."""
        variable = os.environ.get
        return cls(
            account_sid=variable("TWILIO_ACCOUNT_SID", ""),
            auth_token=variable("TWILIO_AUTH_TOKEN", ""),
            api_key_sid=variable("TWILIO_API_KEY", ""),
            api_key_secret=variable("TWILIO_API_SECRET", ""),
            region=variable("TWILIO_REGION", ""),
            edge=variable("TWILIO_EDGE", ""),
            public_url=variable("PUBLIC_URL", "").rstrip("/"),
        )

    def is_signed(self, request: HTTPConnection, params: Any = None) -> bool:
        """Tells whether Twilio signed a request, or anyone is allowed."""
        if self.allow_anyone:
            return True
        root = self.public_url
        if request.scope["type"] == "websocket":
            root = websocket_url(root)
        signature = request.headers.get("X-Twilio-Signature", "")
        return is_valid_signature(self.auth_token, root + request.url.path, signature, params)


def websocket_url(url: str) -> str:
    """Returns the WebSocket counterpart of an http(s) URL."""
    return url.replace("http", "ws", 1)


class Echo(FrameProcessor):
    """Repeats what it hears, and does what the keys ask for."""

    def __init__(self, stream_sid: str, output_bytes: int) -> None:
        super().__init__(enable_direct_mode=True)  # it never waits, so it needs no queue
        self._stream_sid = stream_sid
        self._output_bytes = output_bytes
        self._heard = bytearray()
        self._ending = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Turns input audio into output audio; passes all else on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if not self._ending:
                await self._say_back(frame)
        elif isinstance(frame, InputDTMFFrame):
            await self._press(frame.button.value)
        else:
            await self.push_frame(frame, direction)

    async def _say_back(self, frame: InputAudioRawFrame) -> None:
        self._heard += frame.audio
        while len(self._heard) >= self._output_bytes:
            audio = bytes(self._heard[: self._output_bytes])
            del self._heard[: self._output_bytes]
            await self.push_frame(OutputAudioRawFrame(audio, frame.sample_rate, frame.num_channels))

    async def _press(self, key: str) -> None:
        logger.info(f"the caller pressed {key}")
        mark = messages.mark(self._stream_sid, f"key {key}")
        await self.push_frame(OutputTransportMessageUrgentFrame(mark))
        if key == "*":
            self._heard.clear()
            await self.broadcast_interruption()
        elif key == "#":
            self._ending = True
            # Downstream, behind the audio that was pushed before, so that is still heard.
            await self.push_frame(EndWorkerFrame())


async def run_pipeline(
    transport: BaseTransport, stream_sid: str, sample_rate: int, output_ms: int
) -> None:
    """Runs the echo on a transport until either side ends the call."""
    echo = Echo(stream_sid, 2 * sample_rate * output_ms // 1000)
    worker = PipelineWorker(
        Pipeline([transport.input(), echo, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=sample_rate, audio_out_sample_rate=sample_rate),
        # An echo talks to no web client, takes no turns, and its caller is never idle.
        # Their observers would look at every frame.
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )
    await run_worker(worker, transport)


async def run_worker(worker: PipelineWorker, transport: BaseTransport) -> None:
    """Runs a pipeline until it ends, or until the caller hangs up, which cancels it."""

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def stream_start(websocket: WebSocket) -> messages.Start | None:
    """Reads up to the `start` message; None if it does not come as it should."""
    try:
        async with asyncio.timeout(HANDSHAKE_SECS):
            if isinstance(messages.parse(await websocket.receive_text()), messages.Connected):
                start = messages.parse(await websocket.receive_text())
                return start if isinstance(start, messages.Start) else None
    except (messages.MessageError, TimeoutError, KeyError) as error:
        logger.warning(f"no start message: {type(error).__name__}")
    return None


async def run_bot(websocket: WebSocket, start: messages.Start, settings: Settings) -> None:
    """Runs the bot for one call, until either side ends it."""
    serializer = settings.serializer(
        stream_sid=start.stream_sid,
        call_sid=start.start.call_sid,
        account_sid=settings.account_sid,
        # A server that checks signatures has both; prefer the API key, which can be revoked.
        auth_token=None if settings.api_key_sid else settings.auth_token,
        api_key_sid=settings.api_key_sid,
        api_key_secret=settings.api_key_secret,
        region=settings.region,
        edge=settings.edge,
        base_url=settings.base_url,
        # Without an account there is no call to end.
        params=settings.serializer.InputParams(auto_hang_up=bool(settings.account_sid)),
    )
    transport = settings.transport(
        websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_10ms_chunks=settings.output_ms // 10,
            audio_out_end_silence_secs=settings.end_silence_secs,
            serializer=serializer,
        ),
    )
    await run_pipeline(transport, start.stream_sid, settings.sample_rate, settings.output_ms)


async def read_form(request: Request) -> dict[str, list[str]] | None:
    """Reads a webhook's form; None if it is longer than one of Twilio's."""
    body = b""
    with suppress(ClientDisconnect):  # what follows is for nobody
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_BYTES:
                return None
    return parse_qs(body.decode(errors="replace"), keep_blank_values=True)


def create_app(settings: Settings) -> FastAPI:
    """Returns the web application: Twilio's webhook and the media stream it leads to.

    Raises:
        ValueError: It could not tell who is calling, and was not told to serve anyone.
    """
    if not settings.allow_anyone and not (settings.public_url and settings.auth_token):
        raise ValueError("PUBLIC_URL and TWILIO_AUTH_TOKEN are needed to know Twilio's requests")
    app = FastAPI()

    @app.post("/")
    async def answer(request: Request) -> Response:
        # Until the sender is known to be Twilio, read no more than Twilio sends.
        form = await read_form(request)
        if form is None:
            return Response(status_code=413)
        if not settings.is_signed(request, form):
            return Response(status_code=403)
        # Twilio signs the stream's URL when it opens the socket. With the call's SID in the URL,
        # nobody can use it for another call.
        root = websocket_url(settings.public_url or str(request.base_url).rstrip("/"))
        url = quoteattr(f"{root}/stream/{form.get('CallSid', [''])[0]}")
        twiml = f"<Response><Connect><Stream url={url}/></Connect></Response>"
        return Response(twiml, media_type="application/xml")

    @app.websocket("/stream/{call_sid}")
    async def stream(websocket: WebSocket, call_sid: str) -> None:
        with suppress(WebSocketDisconnect):  # who has left needs no answer
            if settings.is_signed(websocket):
                await websocket.accept()
                start = await stream_start(websocket)
                if start is not None and start.start.call_sid == call_sid:
                    await run_bot(websocket, start, settings)
                    return
            await websocket.close(POLICY_VIOLATION)

    return app


def serve(settings: Settings, **options: Any) -> None:
    """Runs the web server until it is stopped; the options are uvicorn's."""
    app = create_app(settings)
    # Modules stay loaded, so the collector need not search them, which could take 0.1 s.
    gc.collect()
    gc.freeze()
    # An ended call leaves a thousand objects in reference cycles, which only a full collection
    # frees. A collection stops all calls, for longer if there is more to free. So it comes after
    # about 15 calls; Python 3.13's default is after 240.
    gc.set_threshold(700, 10, 1)
    # Twilio does not ask for compression. For a client that does, it would take 10 % of the CPU.
    uvicorn.run(app, ws_per_message_deflate=False, **options)


def main() -> int:
    """Serves calls as the environment and the command line say; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--allow-anyone", action="store_true", help="check no signatures; listens on loopback"
    )
    anyone = parser.parse_args().allow_anyone
    # Whoever is allowed to call must not have other calls of the account ended.
    settings = Settings(allow_anyone=True) if anyone else Settings.from_environment()
    host = "127.0.0.1" if anyone else "0.0.0.0"  # noqa: S104  # Twilio calls
    port = int(os.environ.get("PORT", "8765"))
    try:
        serve(settings, host=host, port=port)
    except ValueError as error:
        logger.error(f"{error}; for a local try, --allow-anyone serves without")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
