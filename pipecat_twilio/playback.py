"""An estimate of what Twilio, which buffers audio and plays it in order, has yet to play."""

import time
from collections.abc import Callable

_SILENCE = b"\xff\x7f"
"""The two mu-law codes of a sample of 0."""


class Playback:
    """Follows the audio sent to one stream.

    Args:
        rate: Bytes of mu-law played per second.
        clock: Tells the time in seconds; monotonic.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Takes note that Twilio was told to empty its buffer."""
        self._ends = self._speech_ends = self._clock()

    def add(self, ulaw: bytes) -> None:
        """Takes note that `ulaw` was sent."""
        starts = max(self._ends, self._clock())
        self._ends = starts + len(ulaw) / self._rate
        if audible := len(ulaw.rstrip(_SILENCE)):
            self._speech_ends = starts + audible / self._rate

    @property
    def remaining_secs(self) -> float:
        """How long Twilio still plays, at most; trailing digital silence does not count."""
        return max(0.0, self._speech_ends - self._clock())
