"""A phone bot in a FastAPI application of your own; put your services where the echo is.

    pip install "pipecat-ai[websocket]"
    TWILIO_ACCOUNT_SID=AC... TWILIO_AUTH_TOKEN=... uvicorn fastapi_bot:app --port 8765

Point your number's voice webhook at https://YOUR-HOST/. Anyone who finds the address can call;
echo_bot.py shows how to serve only Twilio.
"""

import os
from xml.sax.saxutils import quoteattr

from fastapi import FastAPI, Request, Response, WebSocket
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport

app = FastAPI()


class Echo(FrameProcessor):
    """Repeats what the caller says: the place of your STT, LLM and TTS."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Turns the caller's audio into the bot's."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


@app.post("/")
async def answer(request: Request) -> Response:
    """Tells Twilio to stream the call to this server."""
    url = quoteattr(f"wss://{request.url.netloc}/stream")
    twiml = f"<Response><Connect><Stream url={url}/></Connect></Response>"
    return Response(twiml, media_type="application/xml")


@app.websocket("/stream")
async def stream(websocket: WebSocket) -> None:
    """Runs a pipeline for one call, until either side ends it."""
    await websocket.accept()
    _, call = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        stream_sid=call["stream_id"],
        call_sid=call["call_id"],
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
    )
    params = FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
    )
    transport = TwilioTransport(websocket, params)
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
    )

    @transport.event_handler("on_client_disconnected")
    async def stop(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()  # awaited here: a background task would not see the server stop
