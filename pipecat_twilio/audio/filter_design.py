"""Design of the resampler's filter: a Kaiser-windowed sinc, cut into a polyphase bank.

The vocabulary is resampy's: `num_zeros` periods of the lower rate on each side of the sinc's
centre, cut off at `rolloff` times the lower Nyquist frequency, under a Kaiser window of `beta`.

Source: J. O. Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/
"""

from functools import lru_cache
from math import ceil, gcd, prod

import numpy as np
from numpy.typing import NDArray

MAX_RATE = 768_000
"""The highest rate in Hz: the highest that audio hardware has."""

MAX_RATIO = 32
"""The largest ratio of the two rates: 8 to 256 kHz."""

MAX_NUM_ZEROS = 192
"""The longest filter: 4 ms at 48 kHz."""

MAX_BETA = 700.0
"""The largest shape of the window: float64 has no exp() of more than 709."""

PHASES_PER_PERIOD = 192
"""Rows for each period of the lower rate, where the bank is interpolated between its rows.

The error of a sine of w radians a period is at most (w / 192)**2 / 8 of it: 89 dB down at the
lower Nyquist frequency, more below it. The filter itself reaches 84 dB.
"""

MAX_BANK_TAPS = 2 * MAX_NUM_ZEROS * PHASES_PER_PERIOD
"""The most taps of a bank that has a row for each phase: 288 KiB, designed in less than 5 ms.

An interpolated one is up to a third larger.
"""

MAX_PLANES = 6
"""The most samples of a round that are kept apart: 48 to 8 kHz."""

TAPS_MULTIPLE = 16
"""The taps of a row are padded to a multiple of this, as the filter loop needs it (fir.h)."""

WINDOW_POINTS = 4096
"""Points of the window that are computed; by linear interpolation the others are 1e-7 off."""


def reduced_ratio(in_rate: int, out_rate: int) -> tuple[int, int]:
    """Returns `(up, down)`: `out_rate / in_rate` in lowest terms.

    Raises:
        TypeError: A rate is not an integer.
        ValueError: A rate is not within 1 to `MAX_RATE`, or one is more than `MAX_RATIO` times
            the other.
    """
    in_rate = checked_integer("in_rate", in_rate, MAX_RATE)
    out_rate = checked_integer("out_rate", out_rate, MAX_RATE)
    if max(in_rate, out_rate) > MAX_RATIO * min(in_rate, out_rate):
        raise ValueError(
            f"in_rate and out_rate must not differ by more than {MAX_RATIO} times, "
            f"got in_rate={in_rate} and out_rate={out_rate}"
        )
    divisor = gcd(in_rate, out_rate)
    return out_rate // divisor, in_rate // divisor


def checked_integer(name: str, value: int, maximum: int) -> int:
    """Returns an integer from 1 to `maximum`, or raises an error that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r:.99}")
    value = int.__index__(value)  # a subclass may have its own arithmetic
    if not 1 <= value <= maximum:
        raise ValueError(f"{name} must be from 1 to {maximum}, got {value!r:.99}")
    return value


def bank_shape(up: int, down: int, num_zeros: int) -> tuple[int, int, int]:
    """Returns how many phases a bank has, and how many planes of how many taps each of its rows.

    A row for each of the `up` phases where that makes no more than `MAX_BANK_TAPS`; else fewer,
    at equal distances, and one more row to interpolate up to.
    """
    planes = down if up == 1 and down <= MAX_PLANES else 1
    span = 2 * num_zeros * max(up, down)
    taps = ceil(span / (up * planes * TAPS_MULTIPLE)) * TAPS_MULTIPLE
    exact = up * planes * taps <= MAX_BANK_TAPS
    phases = up if exact else ceil(PHASES_PER_PERIOD * up / max(up, down))
    return phases, planes, taps


@lru_cache(maxsize=8)  # a process sees few pairs of rates; this many banks are 3 MiB at most
def polyphase_bank(
    up: int, down: int, num_zeros: int, rolloff: float, beta: float
) -> NDArray[np.float32]:
    """Designs the filter for `up / down`; the same arguments give the same, shared array.

    The sinc is centred `num_zeros` periods of the lower rate after its start, so the delay is
    exactly that, and the phase is linear. A row holds the taps of one phase: row `r` those of the
    outputs that lie `r / phases` of an input period after the newest sample. It sums to 1: no phase
    has a DC gain of its own.

    Args:
        up: Outputs per `down` inputs, in lowest terms.
        down: Inputs per `up` outputs.
        num_zeros: Half length of the filter in periods of the lower rate.
        rolloff: Cutoff as a share of the lower Nyquist frequency, in (0, 1].
        beta: Shape of the Kaiser window; more is a deeper stop band and a wider transition.

    Returns:
        A read-only float32 array of shape (rows, planes, taps), as `bank_shape` says; oldest
        sample first, the first sample of each round in the first plane.
    """
    phases, planes, taps = bank_shape(up, down, num_zeros)
    rows = phases if phases == up else phases + 1
    ages = np.arange(planes * taps, dtype=float)[::-1]  # in samples; exact, as all its products
    ticks = np.arange(rows)[:, np.newaxis] + phases * ages
    periods = ticks * up / (phases * max(up, down)) - num_zeros
    distance = np.abs(periods)
    points = np.linspace(0, 1, WINDOW_POINTS + 1)
    kaiser = np.i0(beta * np.sqrt(1 - points**2)) / np.i0(beta)
    window = np.interp(distance / num_zeros, points, kaiser)
    sinc = np.sinc((rolloff * periods).astype(np.float32))  # as exact as the bank, and faster
    # The end itself is outside: the tap there would have no mirror image.
    design = np.where(distance < num_zeros, sinc * window, 0)
    design /= design.sum(axis=1, keepdims=True)
    bank = _aligned_zeros(rows, planes, taps)
    bank[:] = design.reshape(rows, taps, planes).transpose(0, 2, 1)
    bank.flags.writeable = False
    return bank


def _aligned_zeros(*shape: int) -> NDArray[np.float32]:
    """Returns an array that starts on a cache line, so that few loads of taps need two lines."""
    size, line = prod(shape), 64 // 4
    room = np.zeros(size + line, dtype=np.float32)
    start = -(room.ctypes.data // 4) % line
    return room[start : start + size].reshape(shape)
