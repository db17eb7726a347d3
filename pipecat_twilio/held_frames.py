"""Frames that wait until the caller hears the audio before them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, NamedTuple

from pipecat.frames.frames import (
    Frame,
    OutputAudioRawFrame,
    SystemFrame,
    UninterruptibleFrame,
)
from pipecat.processors.frame_processor import FrameDirection

TIMER_SECS = 0.001
"""The shortest wait: timers are not more exact."""

GRACE_SECS = 0.03
"""How much later than due a frame may be pushed by its timer.

While the bot speaks, the next frame of audio usually comes sooner and pushes what is due. That
saves a wake-up of the process for each frame.
"""


class _Held(NamedTuple):
    due: float
    frame: Frame
    direction: FrameDirection


class HeldFrames:
    """A queue of frames in order, each with the time at which it is due.

    Args:
        push: Pushes a frame in a direction.
        start: Runs a coroutine in a task of its own.
        clock: The time that frames are due by, in seconds.

    Attributes:
        unsent: Audio that is going to be sent. It is not pushed before that, even if it is due.
    """

    unsent: list[OutputAudioRawFrame]

    def __init__(
        self,
        push: Callable[[Frame, FrameDirection], Awaitable[None]],
        start: Callable[..., Any],
        clock: Callable[[], float],
    ) -> None:
        self._push = push
        self._start = start
        self._clock = clock
        self.unsent = []
        self._held: deque[_Held] = deque()
        self._pushing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._held) or self._pushing.locked()

    async def add(
        self, frame: Frame, direction: FrameDirection, due: float = -inf, early_secs: float = 0
    ) -> None:
        """Pushes a frame when it is due and all that were added before it have been pushed.

        Args:
            frame: Any frame.
            direction: Where it is going.
            due: When it is due; at once by default.
            early_secs: If it is due in no more than this, it is due at once.
        """
        self.append(frame, direction, due)
        now = self._clock()
        await self.release(due if now < due <= now + early_secs else now + TIMER_SECS)

    def append(self, frame: Frame, direction: FrameDirection, due: float) -> None:
        """Adds a frame that is pushed by the next `add` or `release` after it is due."""
        self._held.append(_Held(due, frame, direction))

    async def release(self, until: float = inf) -> None:
        """Pushes the frames that are due by a time, or all of them, up to one that is unsent."""
        async with self._pushing:  # or another task could push the next frame first
            while self._held and self._held[0].due <= until:
                _, frame, direction = self._held[0]
                if self.is_unsent(frame):
                    break
                self._held.popleft()
                await self._push(frame, direction)
        self._stop_timer()
        if self._held:
            secs = max(0, self._held[0].due - self._clock()) + GRACE_SECS
            self._timer = asyncio.get_running_loop().call_later(secs, self._release_soon)

    async def interrupt(self) -> None:
        """Drops what an interruption drops from Pipecat's own queues, and pushes the others."""
        self._held = deque(held for held in self._held if not is_interruptible(held.frame))
        await self.release()

    def is_unsent(self, frame: Frame) -> bool:
        """Tells whether a frame is going to be sent."""
        return any(frame is each for each in self.unsent)

    def drop_unsent(self) -> None:
        """Drops the audio that is not sent."""
        self._held = deque(held for held in self._held if not self.is_unsent(held.frame))
        self.unsent = []

    def clear(self) -> None:
        """Drops all frames."""
        self._held.clear()
        self._stop_timer()

    def _release_soon(self) -> None:
        self._start(self.release(self._clock() + TIMER_SECS), "held_frames")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def is_interruptible(frame: Frame) -> bool:
    """Returns whether an interruption drops a frame that has not been heard."""
    by_default = not isinstance(frame, SystemFrame | UninterruptibleFrame)  # before Pipecat 1.11
    return by_default and getattr(frame, "interruptible", True)
