"""Estimates how much audio Twilio has yet to play: it buffers audio, and plays it in order."""

from collections import deque
from math import inf

MAX_BUFFERED_SECS = 600
"""Twilio discards audio beyond this. Source: https://www.twilio.com/docs/api/errors/31931"""

MAX_MARKS = 1000
"""How many marks that have not come back are remembered; the oldest are forgotten first."""

_SILENCE = b"\xff\x7f"  # the two codes of a sample of 0


class Playback:
    """Tracks the audio that was sent to one stream, and its marks.

    Every `now` is a time in seconds on the same monotonic clock.
    """

    def __init__(self) -> None:
        self._ends = -inf  # when all has been played; nothing was sent yet
        self._unplayed: deque[tuple[float, int, bytes]] = deque()  # each after its end and rate
        self._marks: deque[str] = deque(maxlen=MAX_MARKS)  # not yet back, the oldest first
        self._cleared_marks: deque[str] = deque(maxlen=MAX_MARKS)

    def add(self, ulaw: bytes, rate: int, now: float) -> float:
        """Records that `ulaw` was sent; returns how long Twilio's buffer had been empty.

        Twilio plays `rate` bytes of it each second. The first audio of a call, and the first after
        a `clear`, ends no gap: it returns infinity.
        """
        empty_secs = now - self._ends
        if empty_secs < -MAX_BUFFERED_SECS:
            return 0.0
        self._ends = max(self._ends, now) + len(ulaw) / rate
        self._unplayed.append((self._ends, rate, ulaw))
        while self._unplayed and self._unplayed[0][0] <= now:
            self._unplayed.popleft()
        return max(0.0, empty_secs)

    def clear(self) -> None:
        """Records that Twilio was told to empty its buffer."""
        self._ends = -inf
        self._unplayed.clear()
        self._cleared_marks.extend(self._marks)
        self._marks.clear()

    def add_mark(self, name: str) -> None:
        """Records that a mark was sent, behind the audio so far."""
        self._marks.append(name)

    def take_mark(self, name: str) -> bool:
        """Records that a mark came back; returns whether it was cleared instead of played."""
        # Twilio sends marks back in order, so the cleared ones come first.
        for marks in (self._cleared_marks, self._marks):
            if name in marks:
                marks.remove(name)
                return marks is self._cleared_marks
        return False

    def remaining_secs(self, now: float) -> float:
        """Returns the seconds until everything has been played."""
        return max(0.0, self._ends - now)

    def remaining_sound_secs(self, now: float) -> float:
        """Returns the seconds until the last sound has been played, without silence after it."""
        for ends, rate, ulaw in reversed(self._unplayed):
            if sound := ulaw.rstrip(_SILENCE):
                return max(0.0, ends - (len(ulaw) - len(sound)) / rate - now)
        return 0.0
