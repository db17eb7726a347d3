"""16-bit samples: checks of their format; chunks joined, collected, and mixed to one channel."""

from typing import Any

import numpy as np


def positive_int(name: str, value: Any) -> int:
    """Returns a rate or a number of channels of any type as an int.

    Raises:
        ValueError: It is not a positive whole number; the text has `name`.
    """
    try:
        number = int(value)
        if number == value and number > 0:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be a positive integer, got {value!r:.99}")


def pcm_bytes(audio: Any, max_bytes: int) -> bytes:
    """Returns 16-bit samples as bytes.

    Args:
        audio: Bytes, or any buffer of bytes or of 16-bit integers.
        max_bytes: How many bytes it may have; a larger one is not copied.

    Raises:
        TypeError: It is not a buffer.
        ValueError: It is larger, or a buffer of something else.
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

    Args:
        clear_after_secs: The first part of a sample is forgotten if the next chunk comes later
            than this; None never forgets it.
    """

    def __init__(self, clear_after_secs: float | None) -> None:
        self._clear_after_secs = clear_after_secs
        self.clear()

    def clear(self) -> None:
        """Forgets the part of a sample that is kept."""
        self.kept = b""
        self._key: object = None
        self._at_secs = 0.0

    def join(self, chunk: bytes, size: int, key: object, now: float) -> bytes:
        """Returns all whole samples; keeps the bytes after them for the next chunk.

        Args:
            chunk: The next piece of the stream.
            size: Bytes of a sample of all channels.
            key: The format, such as rate and channels: when it changes, the bytes that were kept
                are forgotten.
            now: The time in seconds, always on the same clock.
        """
        if self.kept:
            paused = self._clear_after_secs is not None and (
                now - self._at_secs > self._clear_after_secs
            )
            if key == self._key and not paused:
                chunk = self.kept + chunk
            self.kept = b""
        excess = len(chunk) % size
        if excess:
            self.kept, self._key, self._at_secs = chunk[-excess:], key, now
            chunk = chunk[:-excess]
        return chunk


class Collector:
    """Collects audio until there is enough of it."""

    def __init__(self) -> None:
        self._collected = bytearray()
        self._rate = 0

    def add(self, pcm: bytes, min_bytes: int, rate: int) -> bytes:
        """Adds audio; returns all that was collected if that is `min_bytes`, else nothing.

        Audio that was collected at another rate is forgotten: a frame has one rate.
        """
        if rate != self._rate:
            self._collected.clear()
            self._rate = rate
        self._collected += pcm
        return self.take() if len(self._collected) >= min_bytes else b""

    def take(self) -> bytes:
        """Returns all that was collected, and starts again."""
        pcm = bytes(self._collected)
        self._collected.clear()
        return pcm


def mix_down(pcm: bytes, channels: int) -> bytes:
    """Returns the mean of the channels.

    Args:
        pcm: Interleaved signed 16-bit little-endian samples, whole ones of all channels.
        channels: Their number, 1 or more.
    """
    if channels == 1:
        return pcm
    samples = np.frombuffer(pcm, "<i2").reshape(-1, channels).astype(np.float32)
    return np.rint(samples @ np.full(channels, 1 / channels, np.float32)).astype("<i2").tobytes()
