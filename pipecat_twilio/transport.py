"""Pipecat's FastAPI WebSocket transport, paced by what Twilio has yet to play.

Twilio buffers audio and plays it in order. Pipecat's transport sends it just as fast as it is
played, so the caller hears when the event loop is late by more than a frame. The output here keeps
`lead_secs` in that buffer, and pushes each frame downstream when the caller begins to hear it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import cache
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

from loguru import logger
from pipecat import version
from pipecat.audio.dtmf.utils import load_dtmf_audio
from pipecat.frames import frames
from pipecat.frames.frames import Frame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

try:
    from pipecat.transports.websocket import fastapi
except ImportError as error:
    needed = 'TwilioTransport needs FastAPI: pip install "pipecat-ai[websocket]"'
    raise ImportError(needed) from error

from pipecat_twilio.frame_times import HEARD_AT, duration_secs, heard_at, is_speech, remaining_secs
from pipecat_twilio.listening import TwilioClient, TwilioInputTransport
from pipecat_twilio.params import check_lead_secs
from pipecat_twilio.serializer import TwilioFrameSerializer
from pipecat_twilio.twilio import messages

TIMER_SECS = 0.001  # timers are not more exact
EARLY_SECS = 0.035  # to wake up costs CPU, so what is due so soon is not waited for: 20 ms, jitter
# Overdue audio is pushed in steps: the caller's own late audio is read meanwhile.
LATE_SECS, STEP_SECS = 0.02, 0.005
LAST_SECS = 0.01  # the lead when a mixer's queue may soon be empty: speech may still come
TURNS = 5  # of the event loop, in which Python 3.11 may still hand on what it took from a queue

SPEECH_FRAMES = (frames.BotStartedSpeakingFrame, frames.BotStoppedSpeakingFrame)
PRIVATE_NAMES = {"_callbacks", "_client", "_input", "_input_name", "_output", "_output_name"}
PRIVATE_NAMES |= {"_params", "_write_frame"}
_warn_once = cache(logger.warning)


class TwilioOutputTransport(fastapi.FastAPIWebsocketOutputTransport):
    """The output of a `TwilioTransport`, which makes it."""

    def __init__(self, *args: Any, lead_secs: float, **kwargs: Any) -> None:
        # It hardly ever waits, and queues of its own would cost CPU.
        super().__init__(*args, enable_direct_mode=True, **kwargs)
        self._serializer: Any = self._params.serializer  # type: ignore[attr-defined]
        self._lead_secs = lead_secs
        self._waiting: WeakSet[asyncio.Event] = WeakSet()
        self._kept: list[OutputAudioRawFrame] = []  # that an interruption must not clear
        self._clears, self._cleared_at = 0, -inf
        self._backlog_secs = 0.0  # of speech that came and was not sent
        self._held: deque[tuple[Frame, FrameDirection]] = deque()  # until they are heard
        self._pushing, self._interrupting = asyncio.Lock(), asyncio.Lock()
        self._pushed_in: asyncio.Task[Any] | None = None  # the task that pushes what is held
        self._pushing_task: asyncio.Task[None] | None = None
        self._ending_task: asyncio.Task[None] | None = None
        self._is_speaking: dict[Any, bool] = {}  # as was pushed

    async def _wait(self, secs_left: Callable[[], float], max_secs: float = inf) -> None:
        """Waits until no time is left, but at most `max_secs`."""
        end = monotonic() + max_secs
        while (secs := min(secs_left(), end - monotonic())) > TIMER_SECS:
            self._waiting.add(event := asyncio.Event())
            asyncio.get_running_loop().call_later(secs, event.set)
            await event.wait()

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Sends a frame, then waits while Twilio has more than the lead to play."""
        # Pipecat counts the caller as gone if this and the wait at the end take its own limit.
        secs, max_secs = duration_secs(frame), 0.45 * self._params.audio_out_write_timeout_secs
        has_mixer = self._params.audio_out_mixer is not None
        is_background = has_mixer and not is_speech(frame)
        if frame.interruptible and not is_background:
            await self._wait(self._kept_secs, max_secs)
            if self._interrupting.locked():
                return False
        async with self._interrupting:  # it sends again what is kept, and that comes first
            pass
        clears = self._clears
        if not await self._send(frame):
            await asyncio.sleep(secs if is_background else 0)  # a mixer makes the next one at once
            return False
        if clears != self._clears and frame.interruptible:  # while it was sent
            return False
        at = heard_at(frame)
        if monotonic() + self._serializer.unplayed_secs() < at + secs / 2:
            await asyncio.sleep(secs)  # the serializer sent nothing
        lead_secs = max(secs, 0 if is_background else self._lead_secs)
        if not is_background:
            self._backlog_secs = max(0.0, self._backlog_secs - secs)
            if has_mixer and self._backlog_secs < 2 * secs:
                lead_secs = LAST_SECS  # an empty queue would give background inside a word
        await self._wait(lambda: self._serializer.unplayed_secs() - lead_secs, max_secs)
        if self._held:
            await asyncio.sleep(0)  # other calls get their turn, and an interruption that is due
        # Whether it was heard, or will be.
        return clears == self._clears or at <= self._cleared_at or frame in self._kept

    def _kept_secs(self) -> float:
        """Until audio may be sent that is not kept: a frame shortly before what is kept ends."""
        if self._interrupting.locked():
            return 0
        secs = max(map(remaining_secs, self._kept), default=0.0)
        nothing_follows = self._serializer.unplayed_secs() < secs + TIMER_SECS
        return secs - EARLY_SECS if nothing_follows else secs

    async def write_dtmf(self, frame: Any) -> None:
        """Sends the tones of keys at once; an interruption does not clear them."""
        for button in frame.buttons:
            audio = await load_dtmf_audio(button, sample_rate=self.sample_rate)
            tone = OutputAudioRawFrame(audio, self.sample_rate, 1)
            tone.interruptible = False
            await self._send(tone)

    async def _send(self, frame: OutputAudioRawFrame) -> bool:
        frame.metadata[HEARD_AT] = monotonic() + self._serializer.unplayed_secs()
        if not frame.interruptible:
            self._kept = [*filter(remaining_secs, self._kept), frame]
        return await self._write_frame(frame)

    async def _write_frame(self, frame: Frame) -> bool:
        if isinstance(frame, frames.InterruptionFrame):
            return True  # `_interrupt` sends the `clear`
        if isinstance(frame, frames.EndFrame):
            await self._wait(self._serializer.unplayed_sound_secs)
        elif isinstance(frame, frames.CancelFrame):
            await self._forget_unheard()
        is_written = await super()._write_frame(frame)
        if messages.is_clear(getattr(frame, "message", None)):  # has the effect of an interruption
            await self._forget_unheard(goes_on=True)
        return is_written

    async def caller_left(self, close_code: int | None) -> None:
        """Ends all waits, and releases what is held: nobody will hear it."""
        self._serializer.socket_closed(close_code)
        await self._forget_unheard()
        await self._release(inf)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Does what Pipecat does, and considers what Twilio has yet to play."""
        if isinstance(frame, frames.InterruptionFrame) and not self._interrupting.locked():
            async with self._interrupting:
                await self._interrupt(frame, direction)
        elif isinstance(frame, frames.EndFrame | frames.CancelFrame):  # whoever pushed it goes on
            self._ending_task = self.create_task(super().process_frame(frame, direction), "end")
        else:
            if is_speech(frame) and direction == FrameDirection.DOWNSTREAM:
                self._backlog_secs += duration_secs(frame)
            elif isinstance(frame, frames.VADUserStoppedSpeakingFrame):
                self._serializer.caller_stopped(frame.stop_secs)
            await super().process_frame(frame, direction)

    async def _interrupt(self, frame: Frame, direction: FrameDirection) -> None:
        kept, self._backlog_secs = [*filter(remaining_secs, self._kept)], 0.0
        # While kept audio is played, there is nothing else to clear. If it has not begun, it
        # is cleared with the rest, and sent again.
        if all(heard_at(each) > monotonic() for each in kept):
            await super()._write_frame(frame)
            await self._forget_unheard(kept)
            for each in kept:
                await self._send(each)
        await super().process_frame(frame, direction)
        await self._release(-inf)
        for event in self._waiting:
            event.set()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def _forget_unheard(self, kept: Any = (), *, goes_on: bool = False) -> None:
        """Pushes what was heard, and drops what was not; speech `goes_on` if more of it comes."""
        self._clears, self._cleared_at, self._kept = self._clears + 1, monotonic(), [*kept]
        await self._release(self._cleared_at)
        held, self._held, is_heard = self._held, deque(), goes_on
        for frame, direction in reversed(held):  # speech has begun if audio behind that stays
            if isinstance(frame, OutputAudioRawFrame):
                stays = frame in self._kept
                is_heard = is_heard or stays
            elif isinstance(frame, SPEECH_FRAMES):
                stops = isinstance(frame, frames.BotStoppedSpeakingFrame)
                stays, is_heard = is_heard or stops, is_heard and not stops
                frame.metadata[HEARD_AT] = -inf
            else:
                stays = not frame.interruptible
            if stays:
                self._held.appendleft((frame, direction))
        for event in () if self._interrupting.locked() else self._waiting:
            event.set()

    async def push_frame(self, frame: Frame, direction: Any = FrameDirection.DOWNSTREAM) -> None:
        """Pushes audio, what is behind it, and the start and stop of speech when it is heard."""
        is_start_or_stop = isinstance(frame, SPEECH_FRAMES)
        is_system = isinstance(frame, frames.SystemFrame) or direction == FrameDirection.UPSTREAM
        is_timed = frame.pts and not isinstance(frame, frames.TTSStoppedFrame)
        is_audio = isinstance(frame, OutputAudioRawFrame)
        if is_start_or_stop:
            frame.metadata[HEARD_AT] = monotonic() + self._serializer.unplayed_secs()
            stops = isinstance(frame, frames.BotStoppedSpeakingFrame)
            self._serializer.speech_ended() if stops else self._serializer.speech_started()
        elif is_system or is_timed:
            await super().push_frame(frame, direction)
            return
        elif self._interrupting.locked() and frame.interruptible and not is_audio:
            return  # see TURNS
        is_due = heard_at(frame) <= monotonic() + (0 if is_start_or_stop else EARLY_SECS)
        if is_due and not self._held and not self._pushing.locked():
            await self._push(frame, direction)
            return
        self._held.append((frame, direction))
        if not self._pushing_task or self._pushing_task.done():
            self._pushing_task = self.create_task(self._push_held(), "push_held")

    async def _push_held(self) -> None:
        """Pushes each held frame when it is due."""
        while self._held:
            frame, _ = self._held[0]
            due = heard_at(frame)
            if due > monotonic() + TIMER_SECS:
                await self._wait(lambda: due - monotonic())  # noqa: B023  # ends in this turn
                continue
            if isinstance(frame, OutputAudioRawFrame) and due < monotonic() - LATE_SECS:
                await asyncio.sleep(STEP_SECS)
            await self._release(due)

    async def _release(self, until: float) -> None:
        """Pushes what is due by a time, in order."""
        if self._pushed_in is asyncio.current_task():
            return  # whoever receives a frame from this has pushed or interrupted
        async with self._pushing:
            self._pushed_in = asyncio.current_task()
            while self._held and heard_at(self._held[0][0]) <= until:
                await self._push(*self._held.popleft())
            self._pushed_in = None

    async def _push(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, SPEECH_FRAMES):
            key = direction, frame.transport_destination
            starts = isinstance(frame, frames.BotStartedSpeakingFrame)
            if self._is_speaking.get(key, False) == starts:
                return  # the start that was before it, or the stop behind it, was dropped
            self._is_speaking[key] = starts
        await super().push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Ends the call if no frame has, as where a pipeline is cancelled while it starts."""
        await self._serializer.serialize(frames.CancelFrame())
        for task in filter(None, (self._pushing_task, self._ending_task)):
            await self.cancel_task(task)
        await super().cleanup()  # type: ignore[no-untyped-call]


class TwilioTransport(fastapi.FastAPIWebsocketTransport):
    """Pipecat's `FastAPIWebsocketTransport`, but a late event loop is not heard.

    With a serializer of another kind, input and output are Pipecat's own.

    Args:
        websocket, params, input_name, output_name: Pipecat's arguments.
        lead_secs: Unplayed audio to keep in Twilio's buffer, from 0 to 2 s: how late the event
            loop may be before the caller hears it. It adds no delay. Default 0.5, since the start
            of another call can hold the loop up for 0.3 s.

    Raises:
        ValueError: `lead_secs` is out of range, or the connection's origin is not allowed.
    """

    def __init__(
        self,
        websocket: Any,
        params: fastapi.FastAPIWebsocketParams,
        input_name: str | None = None,
        output_name: str | None = None,
        *,
        lead_secs: float = 0.5,
    ) -> None:
        check_lead_secs(lead_secs)
        super().__init__(websocket, params, input_name, output_name)
        known = {*vars(self), *dir(fastapi.FastAPIWebsocketOutputTransport)}
        if names := ", ".join(sorted(PRIVATE_NAMES - known)):
            _warn_once(f"pipecat-ai {version()} lacks {names}: TwilioTransport acts like Pipecat's")
        elif isinstance(params.serializer, TwilioFrameSerializer):
            self._client = client = TwilioClient(websocket, self._callbacks, params)
            self._input = TwilioInputTransport(self, client, params, name=self._input_name)
            self._output = client.output = TwilioOutputTransport(
                self, client, params, name=self._output_name, lead_secs=lead_secs
            )
