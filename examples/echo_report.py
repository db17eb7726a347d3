"""The results of a call to the echo bot."""

from dataclasses import dataclass

import numpy as np
from call_recording import Recording
from caller import WireLog
from listening import RATE, Pieces, audio_in
from streamdouble.session import SessionResult


@dataclass
class Report:
    """The results of one call; times in milliseconds."""

    name: str
    first_audio: float
    echo_delay: float
    sent: float
    received: float
    keys: str
    cleared: bool
    hung_up: bool
    violations: list[str]

    @property
    def lost(self) -> float:
        """How much of the caller's audio did not come back."""
        return self.sent - self.received

    @property
    def complete(self) -> bool:
        """Whether all of the script took place."""
        heard = self.keys == "123*#" and self.received > 0
        return heard and self.cleared and self.hung_up and not self.violations


def duration(pieces: Pieces) -> float:
    """Returns how long pieces of audio are, in milliseconds."""
    return sum(len(piece) for _, piece in pieces) / RATE * 1000


def echo_delay(log: WireLog) -> float:
    """Returns how much later the caller hears what was said, where the two correlate best."""
    call = Recording.of(log)
    said, heard = call.caller, call.bot.samples
    size = 2 * len(said)
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(said, size).conj())
    return float(np.argmax(correlation[: 2 * RATE])) / RATE * 1000


def report(name: str, log: WireLog, result: SessionResult, *, hung_up: bool) -> Report:
    """Returns the report of a call."""
    marks = [message["mark"]["name"] for _, message in log.received if message["event"] == "mark"]
    return Report(
        name=name,
        first_audio=((result.first_audio_at or float("nan")) - result.started_at) * 1000,
        echo_delay=echo_delay(log),
        sent=duration(audio_in(log.sent, log.pressed_at("#"))),
        received=duration(audio_in(log.received)),
        keys="".join(mark.removeprefix("key ") for mark in marks),
        cleared=any(message["event"] == "clear" for _, message in log.received),
        hung_up=hung_up,
        violations=[str(violation) for violation in result.violations],
    )
