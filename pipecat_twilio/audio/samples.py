"""16-bit samples: checks of their format; chunks joined, and mixed to one channel."""

from contextlib import suppress
from math import inf
from typing import Any

import numpy as np


def positive_int(name: str, value: Any) -> int:
    """Returns a rate or a number of channels of any type as an int.

    Raises:
        ValueError: It is not a positive whole number; the text has `name`.
    """
    if type(value) is int and value > 0:  # as it is for each frame
        return value
    with suppress(TypeError, ValueError, OverflowError):
        if (number := int(value)) == value and number > 0:
            return number
    raise ValueError(f"{name} must be a positive integer, got {value!r:.99}")


def pcm_bytes(audio: Any, max_bytes: int) -> bytes:
    """Returns 16-bit samples as bytes.

    Raises:
        TypeError: `audio` is not a buffer.
        ValueError: It has more than `max_bytes`, or holds neither bytes nor 16-bit integers.
    """
    if type(audio) is bytes and len(audio) <= max_bytes:
        return audio
    view = memoryview(audio)
    if view.nbytes > max_bytes:
        raise ValueError(f"audio must have at most {max_bytes} bytes, got {view.nbytes}")
    if view.format.lstrip("<=@") not in ("B", "b", "c", "h"):
        raise ValueError(f"audio must be 16-bit samples, got a buffer of {view.format!r}")
    return view.tobytes()


class SampleJoiner:
    """Joins samples that the end of a chunk has cut in two.

    Part of a sample is forgotten if the next chunk comes later than `clear_after_secs`.
    """

    def __init__(self, clear_after_secs: float | None) -> None:
        self._clear_after_secs = clear_after_secs
        self.clear()

    def clear(self) -> None:
        """Forgets the part of a sample that is kept."""
        self._kept = b""
        self._key: object = None
        self._at_secs = 0.0

    def join(self, chunk: Any, size: int, key: object, now: float) -> Any:
        """Returns all whole samples of `size` bytes; keeps the rest for the next chunk.

        The rest is forgotten if the next chunk has another `key`, such as rate and channels. `now`
        is the time in seconds.
        """
        if not self._kept and not len(chunk) % size:
            return chunk  # nearly always
        chunk = bytes(chunk)
        limit_secs = inf if self._clear_after_secs is None else self._clear_after_secs
        if self._kept and key == self._key and now - self._at_secs <= limit_secs:
            chunk = self._kept + chunk
        whole = len(chunk) - len(chunk) % size
        self._kept, self._key, self._at_secs = chunk[whole:], key, now
        return chunk[:whole]


def mix_down(pcm: bytes, channels: int) -> bytes:
    """Returns the mean of the channels of interleaved 16-bit little-endian samples."""
    if channels == 1:
        return pcm
    samples = np.frombuffer(pcm, "<i2").reshape(-1, channels).astype(np.float32)
    return np.rint(samples @ np.full(channels, 1 / channels, np.float32)).astype("<i2").tobytes()
