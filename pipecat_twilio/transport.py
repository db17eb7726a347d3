"""Pipecat's FastAPI WebSocket transport, paced by what Twilio has yet to play.

Twilio buffers what it is sent and plays it in order. Pipecat's transport sends audio just as fast
as it is played, so the caller hears it when the event loop is late by more than a frame. The
output here keeps `lead_secs` in that buffer, and pushes each frame when the caller hears it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache
from math import inf
from time import monotonic
from typing import Any

from loguru import logger
from pipecat import version
from pipecat.audio.dtmf.utils import load_dtmf_audio
from pipecat.frames import frames
from pipecat.frames.frames import Frame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.websocket import fastapi

from pipecat_twilio.listening import TwilioClient, TwilioInputTransport
from pipecat_twilio.serializer import TwilioFrameSerializer
from pipecat_twilio.twilio import messages

MAX_LEAD_SECS = 2  # Pipecat's idle timer sees the bot speak when it is sent, not when it is heard
TIMER_SECS = 0.001  # timers are not more exact
EARLY_SECS = 0.035  # a frame due sooner is pushed at once: 20 ms, and jitter. Waking up costs CPU
LATE_SECS = 0.03  # how late a timer may push audio: the next write usually does it before
STEP_SECS = 0.005  # between overdue frames: the caller's own late audio is read meanwhile
LAST_SECS = 0.01  # when a mixer's queue is asked for speech that may not have come yet
PLAYED_SECS = 0.02  # all counts as played when only this is left: the line delays it by more
STALE_SECS = 0.1  # on Python 3.11 audio that left the queue before an interruption comes so late

HEARD_AT = "heard_at"  # in the metadata of audio that was sent: when the caller hears it begin


class TwilioOutputTransport(fastapi.FastAPIWebsocketOutputTransport):
    """The output of a `TwilioTransport`, which makes it."""

    def __init__(self, *args: Any, lead_secs: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._twilio: Any = self._params.serializer
        self._lead_secs = lead_secs
        self._changed = asyncio.Event()
        self._uninterruptible: list[OutputAudioRawFrame] = []  # what Twilio has of it
        self._backlog_secs = 0.0  # of speech that came and was not sent
        self._clears, self._cleared_at, self._stale_until = 0, -inf, -inf
        self._held: deque[tuple[float, Frame, FrameDirection]] = deque()  # each with its due time
        self._pushing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._is_speaking: dict[Any, bool] = {}  # as was pushed

    def _ends_at(self, frame: OutputAudioRawFrame) -> float:
        return frame.metadata[HEARD_AT] + self._secs(frame)

    def _secs(self, frame: OutputAudioRawFrame) -> float:
        return len(frame.audio) / (2 * self._params.audio_out_channels * self.sample_rate)

    async def _wait(self, secs_left: Callable[[], float], max_secs: float = inf) -> bool:
        """Waits until no time is left, but at most `max_secs`; returns whether it waited."""
        end, waited = monotonic() + max_secs, False
        while (secs := min(secs_left(), end - monotonic())) > TIMER_SECS:
            self._changed.clear()
            timer = asyncio.get_running_loop().call_later(secs, self._changed.set)
            try:
                waited = await self._changed.wait()
            finally:
                timer.cancel()
        return waited

    async def _send(
        self, frame: OutputAudioRawFrame, send: Callable[[Any], Awaitable[bool]]
    ) -> bool:
        if not await send(frame):
            return False
        now = monotonic()
        frame.metadata[HEARD_AT] = now + self._twilio.unplayed_secs() - self._secs(frame)
        kept = [each for each in self._uninterruptible if self._ends_at(each) > now]
        self._uninterruptible = kept if frame.interruptible else [*kept, frame]
        return True

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Sends a frame, then waits while Twilio has more than the lead to play."""
        # Pipecat takes a caller for gone whose frame takes longer than twice this.
        max_secs = 0.45 * self._params.audio_out_write_timeout_secs
        secs, clears, has_mixer = self._secs(frame), self._clears, self._params.audio_out_mixer
        is_background = has_mixer and type(frame) is OutputAudioRawFrame
        if frame.interruptible:
            # Nothing that an interruption must clear is sent behind what it must keep.
            kept = self._uninterruptible
            await self._wait(
                lambda: self._ends_at(kept[-1]) - monotonic() - EARLY_SECS if kept else 0, max_secs
            )
            is_stale = clears != self._clears or monotonic() < self._stale_until
            if is_stale and not is_background:
                return False
        if not await self._send(frame, super().write_audio_frame):
            # Nobody is there. A mixer makes its next frame at once.
            await asyncio.sleep(secs if is_background else 0)
            return False
        if not self._twilio.unplayed_secs():  # the serializer kept it
            await asyncio.sleep(secs)
        lead_secs = max(secs, 0 if is_background else self._lead_secs)
        if not is_background:
            self._backlog_secs -= secs
            if has_mixer and self._backlog_secs < 2 * secs:
                lead_secs = LAST_SECS  # from an empty queue comes background, inside a word
        if not await self._wait(lambda: self._twilio.unplayed_secs() - lead_secs, max_secs):
            await asyncio.sleep(0)  # while the lead is filled up, other calls get their turn
        is_cleared = clears != self._clears and frame.metadata[HEARD_AT] > self._cleared_at
        return not (is_cleared and frame.interruptible)

    async def _write_audio_sleep(self) -> None:
        """Does nothing: `write_audio_frame` waits."""

    async def write_dtmf(
        self, frame: frames.OutputDTMFFrame | frames.OutputDTMFUrgentFrame
    ) -> None:
        """Sends the tones of keys at once, without waiting; an interruption keeps them."""
        for button in frame.buttons or ():
            audio = await load_dtmf_audio(button, sample_rate=self.sample_rate)
            tone = OutputAudioRawFrame(audio, self.sample_rate, 1)
            tone.interruptible = False
            await self._send(tone, self._write_frame)

    async def _write_frame(self, frame: Frame) -> bool:
        if isinstance(frame, frames.InterruptionFrame):
            return True  # `_interrupt` has done it
        if isinstance(frame, frames.EndFrame):
            await self._wait(lambda: self._twilio.unplayed_sound_secs() - PLAYED_SECS)
            await self._release(inf)
        elif isinstance(frame, frames.CancelFrame):
            await self._forget_unheard(monotonic())
            await self._release(inf)
        if isinstance(frame, frames.EndFrame | frames.CancelFrame) and not self._client.is_connected:
            await self._twilio.serialize(frame)  # the call must end, whoever is connected
        return await super()._write_frame(frame)

    async def send_message(self, frame: Any) -> None:
        """Sends a message; a `clear` of the bot's own drops what was not heard."""
        now = monotonic()
        await super().send_message(frame)
        if messages.is_clear(frame.message):
            await self._forget_unheard(now)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Processes a frame as Pipecat does, and considers what Twilio has yet to play."""
        if isinstance(frame, frames.InterruptionFrame):
            await self._interrupt(frame)
        elif isinstance(frame, frames.VADUserStoppedSpeakingFrame):
            self._twilio.caller_stopped(frame.stop_secs)
        elif isinstance(frame, OutputAudioRawFrame) and direction == FrameDirection.DOWNSTREAM:
            self._stale_until = -inf
            self._backlog_secs += frame.num_frames / frame.sample_rate
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.InterruptionFrame):
            await self._release(self._cleared_at)
            self._changed.set()

    async def _interrupt(self, frame: Frame) -> None:
        """Clears Twilio's buffer; what must be heard is sent once more, or is being played."""
        now = monotonic()
        self._stale_until, self._backlog_secs = now + STALE_SECS, 0.0
        kept = [each for each in self._uninterruptible if self._ends_at(each) > now]
        if all(each.metadata[HEARD_AT] > now for each in kept):
            self._uninterruptible = []
            await super()._write_frame(frame)
            for each in kept:
                await self._send(each, super()._write_frame)
            await self._forget_unheard(now)

    async def _forget_unheard(self, now: float) -> None:
        """Pushes what was heard by `now`, and drops what was not, and will not be."""
        self._clears, self._cleared_at = self._clears + 1, now
        await self._release(now)
        kept = self._uninterruptible
        self._held = deque(
            (frame.metadata[HEARD_AT] if frame in kept else -inf, frame, direction)
            for _, frame, direction in self._held
            if frame in kept
            or (isinstance(frame, frames.BotStartedSpeakingFrame) and kept)
            or isinstance(frame, frames.BotStoppedSpeakingFrame)
            or not (frame.interruptible or isinstance(frame, OutputAudioRawFrame))
        )

    async def caller_left(self, close_code: int | None) -> None:
        """Ends the call's report, all waits, and releases what is held: nobody will hear it."""
        self._twilio.socket_closed(close_code)
        await self._forget_unheard(monotonic())
        await self._release(inf)
        self._changed.set()

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes audio, what follows it, and the begin and end of speech when it is heard."""
        due = -inf  # behind what is held
        if isinstance(frame, frames.BotStartedSpeakingFrame | frames.BotStoppedSpeakingFrame):
            due = monotonic() + self._twilio.unplayed_secs()
            if isinstance(frame, frames.BotStoppedSpeakingFrame):
                self._backlog_secs = 0.0
                self._twilio.speech_ended()
            else: 
                self._twilio.speech_started()
        elif isinstance(frame, OutputAudioRawFrame):
            due = frame.metadata.get(HEARD_AT, -inf)
        elif (
            isinstance(frame, frames.SystemFrame)
            or direction == FrameDirection.UPSTREAM
            or (frame.pts and not isinstance(frame, frames.TTSStoppedFrame))
        ):
            await super().push_frame(frame, direction)
            return
        self._held.append((due, frame, direction))
        await self._release(monotonic() + EARLY_SECS, all_audio=False)

    async def _release(self, until: float, *, all_audio: bool = True) -> None:
        """Pushes the frames due by a time, in order; all of them, or one frame of audio."""
        async with self._pushing:
            audio_count = 0
            while self._held and self._held[0][0] <= until:
                _, frame, direction = self._held[0]
                audio_count += isinstance(frame, OutputAudioRawFrame)
                if audio_count > 1 and not all_audio:
                    break
                self._held.popleft()
                await self._push(frame, direction)
        if self._timer:
            self._timer.cancel()
        if self._held:
            due, frame, _ = self._held[0]
            late_secs = LATE_SECS if isinstance(frame, OutputAudioRawFrame) else 0
            secs = max(STEP_SECS, due + late_secs - monotonic())
            self._timer = asyncio.get_running_loop().call_later(secs, self._release_later)

    def _release_later(self) -> None:
        self.create_task(self._release(monotonic() + TIMER_SECS, all_audio=False), "release")

    async def _push(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, frames.BotStartedSpeakingFrame | frames.BotStoppedSpeakingFrame):
            # Where an interruption has dropped the beginning, the end must not be pushed.
            key, starts = (direction, frame.transport_destination), "Started" in frame.name
            if self._is_speaking.get(key, False) == starts:
                return
            self._is_speaking[key] = starts
        await super().push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Drops what is held."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        self._held.clear()
        if self._timer:
            self._timer.cancel()


class TwilioTransport(fastapi.FastAPIWebsocketTransport):
    """Pipecat's `FastAPIWebsocketTransport`, but a late event loop is not heard.

    The arguments and events are Pipecat's. With a serializer other than this package's, input and
    output are Pipecat's own.

    Args:
        websocket: The accepted WebSocket.
        params: What can be set.
        input_name: Name of the input processor; None makes one up.
        output_name: Name of the output processor; None makes one up.
        lead_secs: How much unplayed audio to keep in Twilio's buffer, from 0 to 2 s, and never
            less than a frame. The caller does not hear when the event loop is late by less.
            Default 0.5: the start of another call can hold it up for 0.3 s. It adds no delay.

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
        super().__init__(websocket, params, input_name=input_name, output_name=output_name)
        if not isinstance(params.serializer, TwilioFrameSerializer) or _lacks_names(self):
            return
        client = TwilioClient(websocket, self._callbacks, params.ws_close_timeout)
        client.write_timeout_secs = params.audio_out_write_timeout_secs
        self._client = client
        self._input = TwilioInputTransport(self, client, params, name=self._input_name)
        self._output = client.output = TwilioOutputTransport(
            self, client, params, name=self._output_name, lead_secs=lead_secs
        )


def _lacks_names(transport: Any) -> bool:
    names = ("_client", "_callbacks", "_input", "_input_name", "_output", "_output_name")
    missing = [name for name in names if not hasattr(transport, name)]
    if not missing:
        names = ("_write_frame", "_write_audio_sleep", "_params", "_client")
        missing = [name for name in names if not hasattr(transport._output, name)]
    if missing:
        _warn_once(", ".join(missing))
    return bool(missing)


@cache
def _warn_once(missing: str) -> None:
    logger.warning(f"pipecat-ai {version()} lacks {missing}: TwilioTransport paces as Pipecat's")


def check_lead_secs(lead_secs: float) -> None:
    """Raises ValueError if a lead is not from 0 to 2 s."""
    if not isinstance(lead_secs, int | float) or not 0 <= lead_secs <= MAX_LEAD_SECS:
        raise ValueError(f"lead_secs must be from 0 to {MAX_LEAD_SECS}, got {lead_secs!r}")
