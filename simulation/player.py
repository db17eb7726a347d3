"""Does what Twilio does with a bot's audio: plays it in order, echoes marks, clears it."""

from collections import deque
from typing import NamedTuple

RATE = 8000  # Hz; a byte of mu-law is a sample
SILENCE = b"\xff"  # the mu-law code of 0
MAX_BUFFERED = 600 * RATE  # Source: https://www.twilio.com/docs/api/errors/31931


class Played(NamedTuple):
    """Mu-law as the caller heard it, and for each sample whether there was something to play."""

    ulaw: bytes
    is_playing: bytes


class Player:
    """The bot's leg of a call.

    Args:
        started: When the call begins, on the clock of every later `now`; in seconds.
        hold_secs: Audio that comes when there is nothing to play is played so much later, so that
            a sender whose timers are late by less leaves no gap.
    """

    def __init__(self, started: float, hold_secs: float = 0.0) -> None:
        self._started = started
        self._hold = round(hold_secs * RATE)
        self._ulaw, self._is_playing = bytearray(), bytearray()  # from sample `_taken` on
        self._taken = 0
        self._end = 0  # the sample at which all added audio has been played
        self._was_cleared = True  # or nothing has come yet: what comes next ends no gap
        self._marks: deque[tuple[int, str]] = deque()

    def _sample(self, now: float) -> int:
        return round((now - self._started) * RATE)

    def add(self, ulaw: bytes, now: float) -> float:
        """Plays `ulaw` after everything added before.

        Returns:
            For how many seconds there was nothing to play between the audio before and this; 0.0
            if there was no audio before since the last clear.

        Raises:
            OverflowError: More than 10 minutes are waiting, so it is discarded.
        """
        at = self._sample(now)
        if self._end - at > MAX_BUFFERED:
            text = f"{(self._end - at) / RATE:.0f} s are waiting; more audio is discarded"
            raise OverflowError(text)
        begin = self._end if self._end > at else at + self._hold
        gap_secs = 0.0 if self._was_cleared else (begin - self._end) / RATE
        self._was_cleared = False
        silence = begin - self._taken - len(self._ulaw)
        self._ulaw += SILENCE * silence + ulaw
        self._is_playing += bytes(max(0, silence)) + b"\1" * len(ulaw)
        self._end = self._taken + len(self._ulaw)
        return gap_secs

    def mark(self, name: str) -> None:
        """Records a mark, which comes back when everything added before it has been played."""
        self._marks.append((self._end, name))

    def clear(self, now: float) -> list[str]:
        """Forgets what has not been played; returns the marks that waited for it."""
        played = max(0, self._sample(now) - self._taken)
        del self._ulaw[played:], self._is_playing[played:]
        self._end = min(self._end, self._sample(now))
        self._was_cleared = True
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def played_marks(self, now: float) -> list[str]:
        """Returns each mark once, when everything before it has been played."""
        names = []
        while self._marks and self._marks[0][0] <= (now - self._started) * RATE:
            names.append(self._marks.popleft()[1])
        return names

    def take(self, samples: int) -> Played:
        """Returns what is played next; where there is nothing, silence."""
        taken = Played(
            bytes(self._ulaw[:samples]).ljust(samples, SILENCE),
            bytes(self._is_playing[:samples]).ljust(samples, b"\0"),
        )
        del self._ulaw[:samples], self._is_playing[:samples]
        self._taken += samples
        return taken
