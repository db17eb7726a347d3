"""Does what Twilio does with the bot's audio: plays it in order, echoes marks, clears it."""

from collections import deque
from math import inf

from wire import MEDIA_DISCARDED, RATE, SILENCE, STEP_BYTES, STEP_MS, RefusedMessageError

from pipecat_twilio.twilio.playback import MAX_BUFFERED_SECS, Playback

HOLD_SECS = STEP_MS / 1000


class Player:
    """The bot's leg of the call.

    Audio plays behind what has not been played yet, or 20 ms after it came: senders that keep
    pace do so by timers, and it would click each time that one is late. `Playback` knows when all
    has been played. A step is taken when its 20 ms are over.

    Args:
        started: When the first step begins, on the clock of every later `now`; in seconds.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._playback = Playback()
        self._audio = bytearray()  # from sample `_taken` on
        self._taken = 0
        self._marks: deque[tuple[float, str]] = deque()

    def add(self, ulaw: bytes, now: float) -> float:
        """Plays `ulaw` after everything added before.

        Returns:
            For how many seconds there was nothing to play between the audio before and this; 0.0
            if there was no audio before since the last clear.

        Raises:
            RefusedMessageError: More than 10 minutes are waiting, so it is discarded.
        """
        ahead_secs = self._playback.unplayed_secs(now)
        if ahead_secs > MAX_BUFFERED_SECS:
            text = f"{ahead_secs:.0f} s of audio were waiting to be played; more is discarded"
            raise RefusedMessageError(MEDIA_DISCARDED, text)
        begins = now + (ahead_secs or HOLD_SECS)
        gap_secs = self._playback.add(ulaw, RATE, begins)
        if ahead_secs == 0:
            silence = round((begins - self._started) * RATE) - self._taken - len(self._audio)
            self._audio += SILENCE * silence
        self._audio += ulaw
        return gap_secs if ahead_secs == 0 and gap_secs < inf else 0.0

    def mark(self, name: str, now: float) -> None:
        """Records a mark, which comes back when everything added before it has been played."""
        self._marks.append((now + self._playback.unplayed_secs(now), name))

    def clear(self, now: float) -> list[str]:
        """Forgets what has not been played; returns the marks that waited for it."""
        self._playback.clear(now)
        played = max(0, round((now - self._started) * RATE) - self._taken)
        del self._audio[played:]
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def played_marks(self, now: float) -> list[str]:
        """Returns each mark once, when everything before it has been played."""
        names = []
        while self._marks and self._marks[0][0] <= now:
            names.append(self._marks.popleft()[1])
        return names

    def take_step(self) -> bytes | None:
        """Returns the next 20 ms, filled up with silence; None if there is nothing to play."""
        step = bytes(self._audio[:STEP_BYTES])
        del self._audio[:STEP_BYTES]
        self._taken += STEP_BYTES
        return step.ljust(STEP_BYTES, SILENCE) if step else None
