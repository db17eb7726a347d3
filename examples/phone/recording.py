"""Both legs of a call, kept in memory: the caller left, the bot right."""

import io
import wave

import numpy as np
from wire import RATE

from pipecat_twilio import ulaw

MAX_BYTES = 3600 * RATE  # of a leg: an hour


class Recording:
    """What was sent to the bot and what was played of it, as mu-law."""

    def __init__(self) -> None:
        self._caller = bytearray()
        self._bot = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether it has reached its limit."""
        return len(self._caller) >= MAX_BYTES

    def add(self, caller_ulaw: bytes, bot_ulaw: bytes) -> None:
        """Adds the same length of both legs, unless the recording is full."""
        if not self.is_full:
            self._caller += caller_ulaw
            self._bot += bot_ulaw

    def wav(self) -> bytes:
        """Returns it as a stereo WAV file of 8 kHz and 16 bits."""
        legs = [np.frombuffer(ulaw.decode(leg), "<i2") for leg in (self._caller, self._bot)]
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(2)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes(np.stack(legs, axis=1).tobytes())
        return file.getvalue()
