"""Estimates how much audio Twilio has yet to play: it buffers audio, and plays it in order."""

from collections import deque
from math import inf

# Twilio discards audio beyond this. Source: https://www.twilio.com/docs/api/errors/31931
MAX_BUFFERED_SECS = 600
MAX_MARKS = 1000  # that have not come back are remembered; the oldest are forgotten first
_SILENCE = b"\xff\x7f"  # the two codes of a sample of 0


class Playback:
    """Tracks the audio that was sent to one stream, and its marks.

    Every `now` is a time in seconds on one monotonic clock. Audio and a `clear` reach Twilio with
    the same network delay, so it makes no difference to what is cleared.
    """

    def __init__(self) -> None:
        self._ends_at = -inf  # when everything has been played; nothing was sent yet
        self._sound_ends_at = -inf  # the same without the silence at the end
        # Tuples `(name, due_at)` of marks that are not back yet, the oldest first. A mark is due
        # when the audio before it has been played, and never if that was cleared.
        self._marks: deque[tuple[str, float]] = deque(maxlen=MAX_MARKS)

    def add(self, ulaw: bytes, rate: int, now: float) -> float:
        """Records that `ulaw`, of `rate` bytes a second, was sent.

        Returns:
            How long Twilio's buffer had been empty; infinity at the start and after a `clear`.
        """
        empty_secs = max(0.0, now - self._ends_at)
        if self._ends_at - now <= MAX_BUFFERED_SECS:
            starts_at = max(now, self._ends_at)
            self._ends_at = starts_at + len(ulaw) / rate
            if sound := ulaw.rstrip(_SILENCE):
                self._sound_ends_at = starts_at + len(sound) / rate
        return empty_secs

    def clear(self, now: float) -> None:
        """Records that Twilio was told to empty its buffer."""
        self._ends_at = self._sound_ends_at = -inf
        for i, (name, due_at) in enumerate(self._marks):
            if due_at > now:
                self._marks[i] = (name, inf)

    def add_mark(self, name: str) -> None:
        """Records that a mark was sent, behind the audio so far."""
        self._marks.append((name, self._ends_at))

    def take_mark(self, name: str) -> bool:
        """Records that a mark came back; returns whether it was cleared instead of played."""
        for mark in self._marks:  # Twilio sends marks back in order
            if mark[0] == name:
                self._marks.remove(mark)
                return mark[1] == inf
        return False

    def unplayed_secs(self, now: float) -> float:
        """Returns the seconds until everything has been played."""
        return max(0.0, self._ends_at - now)

    def unplayed_sound_secs(self, now: float) -> float:
        """Returns the seconds until the last sound has been played, without silence after it."""
        return max(0.0, self._sound_ends_at - now)
