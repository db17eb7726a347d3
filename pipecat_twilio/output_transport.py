"""The output of `TwilioTransport`, paced by what Twilio has yet to play.

Twilio buffers what it is sent and plays it in order. Pipecat's transport sends audio just as fast
as it is played, and so keeps about one frame in that buffer: whenever the event loop is late by
more, the caller hears a gap, and the lateness is never made up. This one keeps `lead_secs` in
the buffer, and fills it up again as soon as the loop runs.

So what stands behind the output, such as a recorder, gets each frame only when the caller hears it
(`push_frame`), a call ends only when the last word was played (`write_transport_frame`), and an
interruption leaves speech that must not be interrupted in the buffer (`process_frame`). To save
CPU, audio skips queues that are empty, and short frames share a message (see `queues`).
"""

import asyncio
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    DataFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StopFrame,
    SystemFrame,
)
from pipecat.processors.frame_processor import FrameCallback, FrameDirection
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketOutputTransport,
    FastAPIWebsocketParams,
)
from pipecat.utils.utils import obj_id

from pipecat_twilio.held_frames import TIMER_SECS, HeldFrames, is_interruptible
from pipecat_twilio.overrides import is_overridden
from pipecat_twilio.queues import JOINED_SECS, PROCESS_FRAME, following_audio, would_be_next
from pipecat_twilio.serializer import TwilioFrameSerializer

MAX_WAIT_SECS = 1.0
"""The longest wait after one write; what is left of it comes after the next one.

Far below `audio_out_write_timeout_secs` (10), after which Pipecat takes the caller to be gone.
"""

EARLY_SECS = 0.035
"""Audio is not held back for less: a frame of 20 ms, and jitter. A wake-up for each costs CPU."""

PLAYED_SECS = 0.02
"""The audio counts as played when only this is left: the line adds more delay than that."""

STALE_SECS = 0.1
"""A frame that was being taken from the queue when it was emptied is written no later than this."""


@dataclass
class _LastWordFrame(DataFrame):
    """Queued behind all audio when the pipeline ends."""


class TwilioOutputTransport(FastAPIWebsocketOutputTransport):
    """The output of a `TwilioTransport`, which makes it.

    Args:
        args, kwargs: Pipecat's arguments.
        lead_secs: How much unplayed audio to keep in Twilio's buffer, in seconds.
    """

    _params: FastAPIWebsocketParams

    def __init__(self, *args: Any, lead_secs: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lead_secs = lead_secs
        self._look_again = asyncio.Event()  # set for a moment: whoever waits looks again
        self._clears = 0  # how often Twilio's buffer was emptied
        self._uninterruptible_until = -inf  # when the last such audio will have been played
        self._begins_at = -inf  # when the caller hears what was written last
        self._interrupted_at = -inf
        self._newest_id = 0  # of the frames that had been made by then
        self._held = HeldFrames(super().push_frame, self.create_task, monotonic)

    @property
    def _twilio(self) -> TwilioFrameSerializer | None:
        """The serializer, if it knows what Twilio has yet to play."""
        serializer = self._params.serializer
        return serializer if isinstance(serializer, TwilioFrameSerializer) else None

    def _secs(self, frame: OutputAudioRawFrame) -> float:
        return len(frame.audio) / (2 * self._params.audio_out_channels * self.sample_rate)

    def _unplayed_secs(self) -> float:
        twilio = self._twilio
        return twilio.unplayed_secs() if twilio else 0

    async def _write_audio_sleep(self) -> None:
        """Uses Pipecat's pacing only with other serializers."""
        if not self._twilio:
            await super()._write_audio_sleep()  # type: ignore[no-untyped-call]

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Sends a frame, then waits while Twilio has more than `lead_secs` to play.

        Args:
            frame: Audio at the transport's rate.

        Returns:
            Whether it was sent, or is about to be, and not cleared before it was heard.
        """
        if not self._twilio:
            return await super().write_audio_frame(frame)
        if self._is_stale(frame):
            return False
        if self._goes_with_next(frame):
            unsent_secs = sum(map(self._secs, self._held.unsent))
            self._begins_at = monotonic() + self._unplayed_secs() + unsent_secs
            self._held.unsent.append(frame)
            return True
        clears = self._clears
        if not await self._send_audio(frame):
            return False
        unplayed_secs, frame_secs = self._unplayed_secs(), self._secs(frame)
        self._begins_at = monotonic() + unplayed_secs - frame_secs
        if not is_interruptible(frame):
            self._uninterruptible_until = self._begins_at + frame_secs
        # After a frame longer than the lead, the next one may be sent at once. A mixer makes audio
        # all the time. Between utterances it gets no lead, which would delay the next one.
        is_background = self._params.audio_out_mixer and type(frame) is OutputAudioRawFrame
        enough_secs = frame_secs if is_background else max(frame_secs, self._lead_secs)
        if unplayed_secs == 0:  # dropped, or written by a subclass in a way of its own
            await super()._write_audio_sleep()  # type: ignore[no-untyped-call]
        elif unplayed_secs - enough_secs > TIMER_SECS:
            timeout_secs = getattr(self._params, "audio_out_write_timeout_secs", inf)
            await self._wait_until_unplayed(enough_secs, min(MAX_WAIT_SECS, timeout_secs / 2))
        elif unplayed_secs - frame_secs > EARLY_SECS:
            await asyncio.sleep(0)  # while the lead is filled up, other calls get their turn
        return self._clears == clears

    def _is_stale(self, frame: OutputAudioRawFrame) -> bool:
        # An interruption empties the queue. But Python 3.11's `wait_for` returns a frame a few
        # turns of the event loop after it was taken, and this one would be heard after all.
        is_right_after = monotonic() < self._interrupted_at + STALE_SECS
        return is_right_after and frame.id <= self._newest_id and is_interruptible(frame)

    def _goes_with_next(self, frame: OutputAudioRawFrame) -> bool:
        """Tells whether a frame is so short that the next one, which is there, fits in as well."""
        following = following_audio(self, frame)
        return (
            following is not None
            and sum(map(self._secs, [*self._held.unsent, frame, following])) <= JOINED_SECS
            and self._can_be_sent_as_is(following)
            # A subclass or a filter may keep the following one, or send it in a way of its own.
            and not is_overridden(self, "write_audio_frame", TwilioOutputTransport)
            and not is_overridden(self, "_write_frame", FastAPIWebsocketOutputTransport)
            and not getattr(self._params, "audio_out_filter", None)
            # An interruption drops what waits; it must not drop these.
            and is_interruptible(frame)
            and frame.id > self._newest_id
        )

    def _can_be_sent_as_is(self, frame: OutputAudioRawFrame) -> bool:
        # Pipecat's transport sends a copy at its own rate and channels. Where the frame has these
        # already and only our `serialize` sees it, the copy would be work for nothing.
        return (
            not is_overridden(self._params.serializer, "serialize", TwilioFrameSerializer)
            and frame.sample_rate == self.sample_rate
            and frame.num_channels == self._params.audio_out_channels
            and not self._params.add_wav_header
        )

    async def _send_audio(self, frame: OutputAudioRawFrame) -> bool:
        if not self._can_be_sent_as_is(frame):
            return await super().write_audio_frame(frame)
        if not self._client.is_connected or self._client.is_closing:
            self._held.drop_unsent()
            return False
        if self._held.unsent:
            audio = b"".join([each.audio for each in [*self._held.unsent, frame]])
            frame = OutputAudioRawFrame(audio, frame.sample_rate, frame.num_channels)
            self._held.unsent = []
        return await self._write_frame(frame) is not False  # None in Pipecat 1.7

    async def _wait_until_unplayed(self, enough_secs: float, max_wait_secs: float = inf) -> None:
        """Returns when Twilio has no more than this to play, or it has taken too long."""
        end = monotonic() + max_wait_secs
        while (secs := min(self._unplayed_secs() - enough_secs, end - monotonic())) > TIMER_SECS:
            if not self._client.is_connected:  # nobody is left to hear it
                return
            timer = asyncio.get_running_loop().call_later(secs, self._wake)
            try:
                await self._look_again.wait()
            finally:
                timer.cancel()

    def _wake(self) -> None:
        self._look_again.set()
        self._look_again.clear()

    async def write_transport_frame(self, frame: Frame) -> None:
        """Handles a frame from the audio queue; the last one waits until all has been played.

        Args:
            frame: Any frame.
        """
        if isinstance(frame, _LastWordFrame):
            await self._wait_until_unplayed(PLAYED_SECS)
        else:
            await super().write_transport_frame(frame)

    async def queue_frame(
        self,
        frame: Frame,
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
        callback: FrameCallback | None = None,
    ) -> None:
        """Queues a frame, or processes it at once if it is audio that no other frame is ahead of.

        So an interruption right behind audio drops it. In Pipecat the audio is heard after it.

        Args:
            frame: Any frame.
            direction: Where it is going.
            callback: Called when the frame has been processed.
        """
        is_audio = isinstance(frame, OutputAudioRawFrame) and direction == FrameDirection.DOWNSTREAM
        if is_audio and callback is None and self._twilio and would_be_next(self):
            await getattr(self, PROCESS_FRAME)(frame, direction, None)
        else:
            await super().queue_frame(frame, direction, callback)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Processes a frame as Pipecat does, and considers what Twilio has yet to play.

        Args:
            frame: Any frame.
            direction: Where it is going.
        """
        if not isinstance(frame, InterruptionFrame):
            if isinstance(frame, EndFrame):
                await super().process_frame(_LastWordFrame(), FrameDirection.DOWNSTREAM)
            await super().process_frame(frame, direction)
            return
        self._interrupted_at, self._newest_id = monotonic(), obj_id()
        self._held.drop_unsent()
        if self._uninterruptible_until > monotonic():
            # All but what FastAPIWebsocketOutputTransport does: send `clear`.
            await super(FastAPIWebsocketOutputTransport, self).process_frame(frame, direction)
        else:
            await self._held.release(monotonic())  # the caller has begun to hear these
            await super().process_frame(frame, direction)
            self._clears += 1
            self._wake()
            await self._held.interrupt()

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes audio, what follows it, and the beginning and the end of speech when it is heard.

        An interruption drops what is then not heard. All other frames are pushed at once.

        Args:
            frame: Any frame.
            direction: Where it is going.
        """
        is_down = direction == FrameDirection.DOWNSTREAM
        if isinstance(frame, OutputAudioRawFrame) and is_down:
            if self._is_stale(frame):
                return
            if self._held.is_unsent(frame):
                self._held.append(frame, direction, self._begins_at)  # pushed with the next one
                return
            if self._held or self._begins_at > monotonic() + EARLY_SECS:
                await self._held.add(frame, direction, self._begins_at, EARLY_SECS)
                return
        elif isinstance(frame, _LastWordFrame):
            return
        elif isinstance(frame, BotStoppedSpeakingFrame):
            if self._twilio:
                self._twilio.speech_ended()
            heard_at = monotonic() + self._unplayed_secs() - PLAYED_SECS
            await self._held.add(frame, direction, heard_at)
            return
        elif isinstance(frame, EndFrame | StopFrame | CancelFrame):
            await self._held.release()
        elif self._held and (
            isinstance(frame, BotStartedSpeakingFrame)
            or (is_down and not isinstance(frame, SystemFrame) and not frame.pts)
        ):
            await self._held.add(frame, direction)
            return
        await super().push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Releases what the transport holds."""
        self._held.clear()
        await super().cleanup()  # type: ignore[no-untyped-call]
