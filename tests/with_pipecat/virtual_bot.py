"""A bot that runs in virtual time, and what its pipeline was told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
from pipecat.audio.mixers.base_audio_mixer import BaseAudioMixer
from pipecat.frames import frames
from pipecat.frames.frames import Frame, InterruptionFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.websocket import fastapi
from pipecat.workers.runner import WorkerRunner
from streams import STREAM_SID, documented
from virtual_call import RATE, Twilio

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport
from pipecat_twilio.audio.ulaw import decode

SPEECH = {
    frames.BotStartedSpeakingFrame: "started",
    frames.BotStoppedSpeakingFrame: "stopped",
    InterruptionFrame: "interrupted",
    frames.EndFrame: "end",
}


class Serializer(TwilioFrameSerializer):
    """The serializer of a call; its requests to end the call are only written down."""

    def __init__(self, **params: Any) -> None:
        made = self.InputParams(**params)
        super().__init__(STREAM_SID, "CA1", "AC1", "token", params=made)
        self.requests: list[float] = []
        self.close_codes: list[int | None] = []

    async def _hang_up_call(self) -> None:
        self.requests.append(asyncio.get_running_loop().time())

    def socket_closed(self, code: int | None) -> None:
        self.close_codes.append(code)
        super().socket_closed(code)


class Witness(FrameProcessor):
    """Keeps the frames that pass, with their times."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)  # or system frames would overtake others
        self.seen: list[tuple[float, Frame]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append((asyncio.get_running_loop().time(), frame))
        await self.push_frame(frame, direction)

    def times(self, kind: type[Frame]) -> list[float]:
        return [at for at, frame in self.seen if isinstance(frame, kind)]

    @property
    def speech(self) -> list[bytes]:
        """The audio of all speech."""
        return [frame.audio for _, frame in self.seen if isinstance(frame, TTSAudioRawFrame)]

    @property
    def speaking(self) -> list[str]:
        """Short names of the frames that report the bot's speech, or interrupt or end it."""
        return [SPEECH[type(frame)] for _, frame in self.seen if type(frame) in SPEECH]


def words(secs: float, number: int = 1, *, kind: Any = TTSAudioRawFrame, **fields: Any) -> Any:
    """A frame of noise, in whose mu-law `code // 8` is the number."""
    codes = 8 * number + np.random.default_rng(number).integers(0, 8, round(secs * RATE))
    frame = kind(decode(codes.astype(np.uint8).tobytes()), sample_rate=RATE, num_channels=1)
    for name, value in fields.items():
        setattr(frame, name, value)
    return frame


def own_clear() -> frames.OutputTransportMessageUrgentFrame:
    """What a bot sends that clears Twilio's buffer itself."""
    return frames.OutputTransportMessageUrgentFrame({"event": "clear", "streamSid": STREAM_SID})


class Bot:
    """A running pipeline, and the caller's end of its transport."""

    ended: asyncio.Task[None]

    twilio: Twilio

    def __init__(self, transport: Any, serializer: Any, behind: Any = ()) -> None:
        self.transport, self.serializer = transport, serializer
        self.loop: Any = asyncio.get_running_loop()
        self.upstream, self.downstream = Witness(), Witness()
        output = [transport.output(), *behind, self.downstream]
        self.worker = PipelineWorker(
            Pipeline([transport.input(), self.upstream, *output]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )

    async def run(self) -> None:
        """Returns when the pipeline has ended."""
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        await runner.run()

    def told(self, kind: type[Frame] = TTSAudioRawFrame) -> list[float]:
        """When frames of a kind were pushed downstream."""
        return self.downstream.times(kind)

    async def speak(
        self, secs: float, number: int = 1, *, stop: bool = True, **fields: Any
    ) -> None:
        """Has the TTS deliver so much speech at once."""
        stopped = [TTSStoppedFrame()] if stop else []
        await self.queue(words(secs, number, **fields), *stopped)

    async def queue(self, *queued: Frame) -> None:
        await self.worker.queue_frames(queued)

    async def interrupt(self) -> None:
        await self.queue(InterruptionFrame())

    async def leave(self, *, stop: bool = True) -> None:
        """Has the caller leave, with Twilio's last message or without."""
        if stop:
            self.twilio.sends.put_nowait(json.dumps(documented("stop")))
        self.twilio.sends.put_nowait(1000 if stop else 1006)

    async def end(self, frame: Frame | None = None) -> None:
        """Ends the pipeline and returns when it has ended."""
        await self.queue(frame or frames.EndFrame())
        await self.ended


@asynccontextmanager
async def running_bot(
    transport: Callable[..., Any] = TwilioTransport,
    *,
    serializer: Any = None,
    lead_secs: float | None = None,
    behind: Any = (),
    **params: Any,
) -> AsyncIterator[Bot]:
    """Gives a bot, with processors `behind` its output, and cancels it if it has not ended."""
    twilio = Twilio(asyncio.get_running_loop())
    settings = fastapi.FastAPIWebsocketParams(
        **{"audio_out_enabled": True, "audio_out_end_silence_secs": 0} | params,
        serializer=(serializer := serializer or Serializer()),
    )
    options = {} if lead_secs is None else {"lead_secs": lead_secs}
    bot = Bot(transport(twilio, settings, **options), serializer, behind)
    bot.twilio = twilio
    bot.ended = asyncio.create_task(bot.run())
    async with asyncio.timeout(10):
        while not bot.downstream.seen:  # noqa: ASYNC110  # the StartFrame
            await asyncio.sleep(0.001)
    try:
        yield bot
    finally:
        if not bot.ended.done():
            await bot.worker.cancel()
        await bot.ended


Play = Callable[..., Bot]


class Hum(BaseAudioMixer):
    """Background audio: where nobody speaks, a sample is 0 or 1."""

    mixed = 0
    start = stop = process_frame = AsyncMock()

    async def mix(self, audio: bytes) -> bytes:
        self.mixed += 1
        return audio
