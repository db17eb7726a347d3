"""A bot and its caller without a network, in virtual time: what was sent when, and what was heard.

Time passes only while everything waits. So every result is exact, and two hours take seconds.
"""

import asyncio
import json
import selectors
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from pipecat.audio.mixers.base_audio_mixer import BaseAudioMixer
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputTransportMessageUrgentFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio import audio_buffer_processor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports import base_output
from pipecat.transports.websocket import fastapi
from pipecat.workers.runner import WorkerRunner
from starlette.websockets import WebSocketState
from streams import documented

from pipecat_twilio import TwilioFrameSerializer, TwilioTransport
from pipecat_twilio.audio.ulaw import decode

RATE = 8000
STREAM_SID = "MZ1"
SPEECH = {
    BotStartedSpeakingFrame: "started",
    BotStoppedSpeakingFrame: "stopped",
    InterruptionFrame: "interrupted",
    EndFrame: "end",
}


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
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, monkeypatch.context() as patch:
        loop = cast("VirtualLoop", runner.get_loop())
        for name, module in list(sys.modules.items()):
            if name.startswith("pipecat_twilio.") and hasattr(module, "monotonic"):
                patch.setattr(module, "monotonic", loop.time)
        clocks = SimpleNamespace(monotonic=loop.time, time=loop.time)
        for module in (fastapi, base_output, audio_buffer_processor):
            patch.setattr(sys.modules[module.__name__], "time", clocks)
        return runner.run(main(loop))


def stall(loop: VirtualLoop, secs: float, every_secs: float = 0) -> None:
    """Holds the event loop up, once or again and again."""
    loop.now += secs
    if every_secs:
        loop.call_later(every_secs - secs, stall, loop, secs, every_secs)


class Piece(NamedTuple):
    """A message's audio, and when it was heard."""

    begin: float
    end: float
    ulaw: bytes

    @property
    def heard(self) -> bytes:
        return self.ulaw[: round((self.end - self.begin) * RATE)]


class Twilio:
    """The other end of the socket: it plays audio in order, and sends marks back."""

    headers: dict[str, str] = {}  # noqa: RUF012
    client_state = application_state = WebSocketState.CONNECTED

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.received: list[tuple[float, dict[str, Any]]] = []
        self.plays: list[Piece] = []
        self.levels: list[float] = []  # seconds unplayed after each piece came
        self.closed_at: float | None = None
        self.sends: asyncio.Queue[str | int] = asyncio.Queue()  # what the bot receives
        self.send_secs = 0.0  # how long the bot's `send` takes; infinity if it never returns

    async def send_text(self, text: str) -> None:
        if self.send_secs == inf:
            await asyncio.Event().wait()
        elif self.send_secs:
            await asyncio.sleep(self.send_secs)
        now, message = self._loop.time(), json.loads(text)
        self.received.append((now, message))
        if message["event"] == "media":
            ulaw = b64decode(message["media"]["payload"])
            begin = now + self.unplayed_secs
            self.plays.append(Piece(begin, begin + len(ulaw) / RATE, ulaw))
            self.levels.append(self.unplayed_secs)
        elif message["event"] == "mark":
            self._loop.call_later(self.unplayed_secs, self.sends.put_nowait, text)
        elif message["event"] == "clear":
            self.plays = [p._replace(end=min(p.end, now)) for p in self.plays if p.begin < now]

    async def receive(self) -> dict[str, Any]:
        sent = await self.sends.get()
        if isinstance(sent, str):
            return {"type": "websocket.receive", "text": sent}
        self.client_state = WebSocketState.DISCONNECTED
        return {"type": "websocket.disconnect", "code": sent}

    async def close(self) -> None:
        self.closed_at = self._loop.time()
        self.application_state = WebSocketState.DISCONNECTED
        self.sends.put_nowait(1000)

    @property
    def unplayed_secs(self) -> float:
        return max(0, self.plays[-1].end - self._loop.time()) if self.plays else 0

    def times(self, event: str) -> list[float]:
        """When each message of a kind came."""
        return [at for at, message in self.received if message["event"] == event]

    @property
    def heard_until(self) -> float:
        return self.plays[-1].end

    @property
    def silences(self) -> list[float]:
        """How long each silence between two pieces was, in seconds."""
        pairs = zip(self.plays, self.plays[1:], strict=False)
        return [
            after.begin - before.end for before, after in pairs if after.begin > before.end + 1e-6
        ]

    def heard_secs(self, number: int) -> float:
        """How much was heard of what `words` with this number returned."""
        heard = np.frombuffer(b"".join(piece.heard for piece in self.plays), np.uint8)
        return float(np.count_nonzero(heard // 8 == number)) / RATE


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

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(enable_direct_mode=True)  # or system frames would overtake others
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
        return [SPEECH[type(frame)] for _, frame in self.seen if type(frame) in SPEECH]


def words(secs: float, number: int = 1, *, kind: Any = TTSAudioRawFrame, **fields: Any) -> Any:
    """A frame of noise, in whose mu-law `code // 8` is the number."""
    codes = 8 * number + np.random.default_rng(number).integers(0, 8, round(secs * RATE))
    frame = kind(decode(codes.astype(np.uint8).tobytes()), sample_rate=RATE, num_channels=1)
    for name, value in fields.items():
        setattr(frame, name, value)
    return frame


def own_clear() -> OutputTransportMessageUrgentFrame:
    """What a bot sends that clears Twilio's buffer itself."""
    return OutputTransportMessageUrgentFrame({"event": "clear", "streamSid": STREAM_SID})


class Bot:
    """A running pipeline, and the caller's end of its transport."""

    ended: asyncio.Task[None]

    def __init__(
        self, transport: Any, twilio: Twilio, loop: Any, serializer: Any, behind: Any
    ) -> None:
        self.transport, self.twilio, self.loop = transport, twilio, loop
        self.serializer = serializer
        self.upstream, self.downstream = Witness(loop.time), Witness(loop.time)
        output = [transport.output(), *behind, self.downstream]
        self.worker = PipelineWorker(
            Pipeline([transport.input(), self.upstream, *output]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )

    async def speak(
        self, secs: float, number: int = 1, *, stop: bool = True, **fields: Any
    ) -> None:
        """Has the TTS deliver so much speech at once."""
        stopped = [TTSStoppedFrame()] if stop else []
        await self.queue(words(secs, number, **fields), *stopped)

    async def queue(self, *frames: Frame) -> None:
        await self.worker.queue_frames(frames)

    async def interrupt(self) -> None:
        await self.queue(InterruptionFrame())

    async def leave(self, *, stop: bool = True) -> None:
        """Has the caller leave, with Twilio's last message or without."""
        if stop:
            self.twilio.sends.put_nowait(json.dumps(documented("stop")))
        self.twilio.sends.put_nowait(1000 if stop else 1006)

    async def end(self, frame: Frame | None = None) -> None:
        """Ends the pipeline and returns when it has ended."""
        await self.queue(frame or EndFrame())
        await self.ended


@asynccontextmanager
async def running_bot(
    loop: Any,
    transport: Callable[..., Any] = TwilioTransport,
    *,
    serializer: Any = None,
    lead_secs: float | None = None,
    behind: Any = (),
    **params: Any,
) -> AsyncIterator[Bot]:
    """Gives a bot that has started, and cancels it if it has not ended.

    `behind` are processors behind the output.
    """
    twilio = Twilio(loop)
    settings = fastapi.FastAPIWebsocketParams(
        **{"audio_out_enabled": True, "audio_out_end_silence_secs": 0} | params,
        serializer=(serializer := serializer or Serializer()),
    )
    options = {} if lead_secs is None else {"lead_secs": lead_secs}
    bot = Bot(transport(twilio, settings, **options), twilio, loop, serializer, behind)
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


class Hum(BaseAudioMixer):
    """Background audio: where nobody speaks, a sample is 0 or 1."""

    mixed = 0

    async def start(self, sample_rate: int) -> None: ...

    async def stop(self) -> None: ...

    async def process_frame(self, frame: Frame) -> None: ...

    async def mix(self, audio: bytes) -> bytes:
        self.mixed += 1
        return audio
