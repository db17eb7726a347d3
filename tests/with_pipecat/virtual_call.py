"""A bot and its caller without a network, in virtual time: what was sent when, and what was heard.

Time passes only while everything waits. So every result is exact, and two hours take seconds.
"""

import asyncio
import json
import selectors
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pipecat.audio.mixers.base_audio_mixer import BaseAudioMixer
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner
from starlette.websockets import WebSocketState

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport

RATE = 8000


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[Any]:
                events = super().select(0)
                if not events:
                    assert timeout is not None, "everything waits for nothing"
                    loop.now += timeout
                return events

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def in_virtual_time(monkeypatch: pytest.MonkeyPatch, main: Callable[[VirtualLoop], Any]) -> Any:
    """Runs a coroutine function that takes the loop; all clocks are the loop's."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = cast("VirtualLoop", runner.get_loop())
        monkeypatch.setattr("pipecat_twilio.serializer.monotonic", loop.time)
        monkeypatch.setattr("pipecat_twilio.call_ending.monotonic", loop.time)
        monkeypatch.setattr("pipecat_twilio.output_transport.monotonic", loop.time)
        clocks = SimpleNamespace(monotonic=loop.time, time=loop.time)
        monkeypatch.setattr("pipecat.transports.websocket.fastapi.time", clocks)
        monkeypatch.setattr("pipecat.transports.base_output.time", clocks)
        return runner.run(main(loop))


class Twilio:
    """The other end of the socket: it plays audio in order, as early as possible."""

    headers: dict[str, str] = {}  # noqa: RUF012
    client_state = application_state = WebSocketState.CONNECTED

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.received: list[tuple[float, dict[str, Any]]] = []
        self.plays: list[tuple[float, float]] = []  # when each piece of audio was heard
        self.levels: list[float] = []  # seconds unplayed after each piece came
        self.closed_at: float | None = None
        self.sends: asyncio.Queue[str] = asyncio.Queue()  # what the bot receives

    async def send_text(self, text: str) -> None:
        now, message = self._clock(), json.loads(text)
        self.received.append((now, message))
        if message["event"] == "media":
            begin = max(self.plays[-1][1] if self.plays else 0, now)
            secs = len(b64decode(message["media"]["payload"])) / 8000
            self.plays.append((begin, begin + secs))
            self.levels.append(self.unplayed_secs)
        elif message["event"] == "clear":
            self.plays = [(begin, min(end, now)) for begin, end in self.plays if begin < now]

    async def receive(self) -> dict[str, Any]:
        return {"type": "websocket.receive", "text": await self.sends.get()}

    async def close(self) -> None:
        self.closed_at = self._clock()
        self.client_state = WebSocketState.DISCONNECTED

    @property
    def unplayed_secs(self) -> float:
        return max(0, self.plays[-1][1] - self._clock()) if self.plays else 0

    def media_times(self) -> list[float]:
        """When each piece of audio came."""
        return [at for at, message in self.received if message["event"] == "media"]

    @property
    def heard_until(self) -> float:
        return self.plays[-1][1]

    @property
    def silences(self) -> list[float]:
        """How long each silence between two pieces was, in seconds."""
        pairs = zip(self.plays, self.plays[1:], strict=False)
        return [after[0] - before[1] for before, after in pairs if after[0] - before[1] > 1e-6]


class Witness(FrameProcessor):
    """Keeps the frames that pass, with their times."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._now = clock
        self.seen: list[tuple[float, Frame]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append((self._now(), frame))
        await self.push_frame(frame, direction)

    def times(self, kind: type[Frame]) -> list[float]:
        return [at for at, frame in self.seen if isinstance(frame, kind)]

    @property
    def speaking(self) -> list[str]:
        """Short names of the frames that report the bot's speech, or interrupt or end it."""
        kinds = {
            BotStartedSpeakingFrame: "started",
            BotStoppedSpeakingFrame: "stopped",
            InterruptionFrame: "interrupted",
            EndFrame: "end",
        }
        return [name for _, f in self.seen for kind, name in kinds.items() if isinstance(f, kind)]


class Bot:
    """A running pipeline, and the caller's end of its transport."""

    ended: asyncio.Task[None]

    def __init__(
        self, transport: TwilioTransport, twilio: Twilio, clock: Any, behind: list[FrameProcessor]
    ) -> None:
        self.clock = clock
        self.transport = transport
        self.twilio = twilio
        self.upstream, self.downstream = Witness(clock), Witness(clock)
        output = [transport.output(), *behind, self.downstream]
        pipeline = Pipeline([transport.input(), self.upstream, *output])
        self.worker = PipelineWorker(
            pipeline,
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )

    async def speak(self, secs: float, kind: type = TTSAudioRawFrame, *, stop: bool = True) -> None:
        """Has the TTS deliver so much speech at once."""
        pcm = b"\x10\x10" * round(secs * RATE)
        await self.worker.queue_frame(kind(pcm, sample_rate=RATE, num_channels=1))
        if stop:
            await self.worker.queue_frame(TTSStoppedFrame())

    async def interrupt(self) -> None:
        await self.worker.queue_frame(InterruptionFrame())

    def interruption(self) -> tuple[Frame, FrameDirection]:
        return InterruptionFrame(), FrameDirection.DOWNSTREAM

    async def end(self) -> None:
        """Ends the pipeline and returns when it has ended."""
        await self.worker.queue_frame(EndFrame())
        await self.ended


@asynccontextmanager
async def running_bot(
    clock: Callable[[], float],
    transport: Callable[..., Any] = TwilioTransport,
    *,
    serializer: Any = None,
    lead_secs: float | None = None,
    behind: list[FrameProcessor] | None = None,
    **params: Any,
) -> AsyncIterator[Bot]:
    """Gives a bot that has started, and cancels it if it has not ended.

    `behind` are processors behind the output.
    """
    twilio = Twilio(clock)
    if serializer is None:
        no_rest = TwilioFrameSerializer.InputParams(auto_hang_up=False)
        serializer = TwilioFrameSerializer("MZ1", params=no_rest)
    settings = FastAPIWebsocketParams(
        **{"audio_out_enabled": True, "audio_out_end_silence_secs": 0} | params,
        serializer=serializer,
    )
    options = {} if lead_secs is None else {"lead_secs": lead_secs}
    bot = Bot(transport(twilio, settings, **options), twilio, clock, behind or [])
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(bot.worker)
    bot.ended = asyncio.create_task(runner.run())
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


def stall(loop: VirtualLoop, secs: float, every_secs: float) -> None:
    """Holds the event loop up, again and again."""
    loop.now += secs
    loop.call_later(every_secs - secs, stall, loop, secs, every_secs)


async def say_two_seconds(bot: Bot, _: VirtualLoop) -> None:
    await bot.speak(2)
    await asyncio.sleep(4)


async def say_two_seconds_with_stalls(bot: Bot, loop: VirtualLoop) -> None:
    loop.call_later(0.1, stall, loop, 0.12, 0.5)
    await say_two_seconds(bot, loop)


async def interrupt_right_behind_audio(bot: Bot, loop: VirtualLoop) -> None:
    await say_two_seconds(bot, loop)
    await bot.transport.output().queue_frame(TTSAudioRawFrame(bytes(640), RATE, 1))
    await bot.transport.output().queue_frame(InterruptionFrame())
    await asyncio.sleep(1)


def no_hang_up(kind: type = TwilioFrameSerializer) -> Any:
    return kind("MZ1", params=kind.InputParams(auto_hang_up=False))


class Hum(BaseAudioMixer):
    """Background audio."""

    mixed = 0

    async def start(self, sample_rate: int) -> None: ...

    async def stop(self) -> None: ...

    async def process_frame(self, frame: Frame) -> None: ...

    async def mix(self, audio: bytes) -> bytes:
        self.mixed += 1
        return (np.frombuffer(audio, "<i2") + 1).astype("<i2").tobytes()
