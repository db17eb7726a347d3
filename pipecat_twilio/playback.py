"""An estimate of what Twilio, which buffers audio and plays it in order, has yet to play."""

_SILENCE = b"\xff\x7f"
"""The two mu-law codes of a sample of 0."""


class Playback:
    """Follows the audio sent to one stream. `now` is always a monotonic time, in seconds.

    Args:
        rate: Bytes of mu-law played per second.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._ends = self._speech_ends = 0.0

    def clear(self) -> None:
        """Takes note that Twilio was told to empty its buffer."""
        self._ends = self._speech_ends = 0.0

    def add(self, ulaw: bytes, now: float) -> None:
        """Takes note that `ulaw` was sent."""
        starts = max(now, self._ends)
        self._ends = starts + len(ulaw) / self._rate
        if audible := len(ulaw.rstrip(_SILENCE)):
            self._speech_ends = starts + audible / self._rate

    def remaining_secs(self, now: float) -> float:
        """Returns how long Twilio still plays, at most; trailing digital silence does not count."""
        return max(0.0, self._speech_ends - now)
