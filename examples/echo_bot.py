"""A phone bot that repeats what it hears, and knows who is calling.

Keys: `*` interrupts the bot, `#` has it hang up; every key is answered with a Twilio mark.

For a local try, `python echo_bot.py --allow-anyone` serves anyone on this machine, and ends no
calls at Twilio. To answer real calls, point a number's voice webhook at PUBLIC_URL/ and set

    PUBLIC_URL          where Twilio reaches this server, such as https://bot.example.com
    TWILIO_AUTH_TOKEN   signs Twilio's requests; without these two the bot does not start
    TWILIO_ACCOUNT_SID  ends calls, together with the token, or with an API key:
    TWILIO_API_KEY      and TWILIO_API_SECRET
    PORT                to listen on; 8765 by default
"""

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
from pipecat.audio.dtmf.types import KeypadEntry
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
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.websockets import WebSocketDisconnect

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport, is_valid_signature, messages

HANDSHAKE_SECS = 5
MAX_FORM_BYTES = 16384  # of a webhook: Twilio's have about 1 KB


@dataclass(frozen=True)
class Settings:
    """The bot's configuration, the first five from the environment."""

    account_sid: str = ""
    auth_token: str = field(default="", repr=False)
    api_key_sid: str = ""
    api_key_secret: str = field(default="", repr=False)
    public_url: str = ""
    base_url: str = ""  # of a REST API in place of Twilio's
    allow_anyone: bool = False
    sample_rate: int = 16000
    output_ms: int = 40  # of audio in a message: half as many frames as Twilio sends
    serializer: type = TwilioFrameSerializer
    transport: type = TwilioTransport

    def url(self, request: HTTPConnection, path: str) -> str:
        """Returns the public URL of a path, in the scheme of the request or of a WebSocket."""
        return (self.public_url or str(request.base_url)).rstrip("/") + path

    def is_signed(self, request: HTTPConnection, params: Any = None) -> bool:
        """Tells whether Twilio signed a request, or anyone is allowed."""
        url = self.url(request, request.url.path)
        if request.scope["type"] == "websocket":
            url = url.replace("http", "ws", 1)
        signature = request.headers.get("X-Twilio-Signature", "")
        return self.allow_anyone or is_valid_signature(self.auth_token, url, signature, params)


class Echo(FrameProcessor):
    """Repeats what it hears, and does what the keys ask for."""

    def __init__(self, stream_sid: str) -> None:
        super().__init__(enable_direct_mode=True)  # it never waits, so it needs no queue
        self._stream_sid = stream_sid
        self._ending = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Turns input audio into output audio; passes all else on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if not self._ending:
                await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, 1))
        elif isinstance(frame, InputDTMFFrame):
            mark = messages.mark(self._stream_sid, f"key {frame.button.value}")
            await self.push_frame(OutputTransportMessageUrgentFrame(mark))
            if frame.button == KeypadEntry.STAR:
                await self.broadcast_interruption()
            elif frame.button == KeypadEntry.POUND:
                self._ending = True
                # Downstream, behind the audio that was pushed before, so that is still heard.
                await self.push_frame(EndWorkerFrame())
        else:
            await self.push_frame(frame, direction)


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
        base_url=settings.base_url,
        # Without an account there is no call to end.
        params=settings.serializer.InputParams(auto_hang_up=bool(settings.account_sid)),
    )
    params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
    params.serializer = serializer
    params.audio_out_10ms_chunks = settings.output_ms // 10
    params.audio_out_end_silence_secs = 0  # the hang-up waits for the last words anyway
    transport = settings.transport(websocket, params)
    rate = settings.sample_rate
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(start.stream_sid), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=rate),
        # Whatever an echo does not need would look at every frame.
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )

    @transport.event_handler("on_client_disconnected")
    async def stop(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def stream_start(websocket: WebSocket) -> messages.Start | None:
    """Reads up to the `start` message; None if it does not come as it should."""
    with suppress(messages.MessageError, TimeoutError, KeyError):
        async with asyncio.timeout(HANDSHAKE_SECS):
            connected = messages.parse(await websocket.receive_text())
            start = messages.parse(await websocket.receive_text())
            if isinstance(connected, messages.Connected) and isinstance(start, messages.Start):
                return start
    return None


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
    """Returns the web application; raises ValueError if it cannot tell who is calling."""
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
        url = settings.url(request, f"/stream/{form.get('CallSid', [''])[0]}")
        url = quoteattr(url.replace("http", "ws", 1))
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
            await websocket.close(1008)  # policy violation; RFC 6455, section 7.4.1

    return app


def serve(app: FastAPI, **options: Any) -> None:
    """Runs the web server until it is stopped."""
    # A full collection stops all calls, for 0.1 s if it searches the modules too. An ended call
    # leaves a thousand objects for it, so it comes after about 15 calls, not Python's 240.
    gc.freeze()
    gc.set_threshold(700, 10, 1)
    # Twilio does not ask for compression. For a client that does, it would take 10 % of the CPU.
    uvicorn.run(app, ws_per_message_deflate=False, **options)


if __name__ == "__main__":
    names = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY", "TWILIO_API_SECRET")
    settings = Settings(*(os.environ.get(name, "") for name in (*names, "PUBLIC_URL")))
    if anyone := "--allow-anyone" in sys.argv:
        settings = Settings(allow_anyone=True)  # who must not have the account's calls ended
    host = "127.0.0.1" if anyone else "0.0.0.0"  # noqa: S104  # Twilio calls
    try:
        serve(create_app(settings), host=host, port=int(os.environ.get("PORT", "8765")))
    except ValueError as error:
        sys.exit(f"{error}; for a local try, --allow-anyone serves without.")
