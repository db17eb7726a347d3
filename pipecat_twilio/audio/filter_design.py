"""Design of the resampler's filter: a Kaiser-windowed sinc, cut into a polyphase bank.

The vocabulary is resampy's: `num_zeros` periods of the lower rate on each side of the sinc's
centre, cut off at `rolloff` times the lower Nyquist frequency, under a Kaiser window of `beta`.

Source: J. O. Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/
"""

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

MAX_RATE = 768_000  # in Hz: the highest that audio hardware has
MAX_RATIO = 32  # of the two rates: 8 to 256 kHz
MAX_NUM_ZEROS = 192  # 4 ms at 48 kHz
MAX_BETA = 700.0  # float64 has no exp() of more than 709
MAX_TAPS = 112_896  # what 32 to 44.1 kHz needs with 4 ms; its design takes 10 ms
ROW_MULTIPLE = 32  # rows are padded to it, for each sample of a round: four vectors (fir.h)


def reduced_ratio(in_rate: int, out_rate: int, num_zeros: int) -> tuple[int, int]:
    """Returns `(up, down)`: `out_rate / in_rate` in lowest terms.

    Raises:
        TypeError: An argument is not an integer.
        ValueError: A rate, their ratio or the size of their filter is out of range.
    """
    in_rate = checked_integer("in_rate", in_rate, MAX_RATE)
    out_rate = checked_integer("out_rate", out_rate, MAX_RATE)
    if max(in_rate, out_rate) > MAX_RATIO * min(in_rate, out_rate):
        raise ValueError(
            f"in_rate and out_rate must not differ by more than {MAX_RATIO} times, "
            f"got in_rate={in_rate} and out_rate={out_rate}"
        )
    divisor = gcd(in_rate, out_rate)
    up, down = out_rate // divisor, in_rate // divisor
    taps = max(2 * num_zeros, ROW_MULTIPLE) * max(up, down)
    if taps > MAX_TAPS and up != down:
        raise ValueError(
            f"in_rate and out_rate must have a ratio that {MAX_TAPS} taps are enough for, "
            f"got in_rate={in_rate} and out_rate={out_rate}, which need {taps}"
        )
    return up, down


def checked_integer(name: str, value: int, maximum: int) -> int:
    """Returns an integer from 1 to `maximum`, or raises an error that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r:.99}")
    if not 1 <= value <= maximum:
        raise ValueError(f"{name} must be from 1 to {maximum}, got {value!r:.99}")
    return value


@lru_cache(maxsize=8)  # a process sees few pairs of rates; the usual ones need 0.5 MiB at most
def polyphase_bank(
    up: int, down: int, num_zeros: int, rolloff: float, beta: float
) -> NDArray[np.float32]:
    """Designs the filter for `up / down`; the same arguments give the same, shared array.

    The sinc is centred `num_zeros` periods of the lower rate after its start, so the delay is
    exactly that, and the phase is linear. Row `r` holds the taps of the outputs that lie `r / up`
    of an input period after the newest sample. It sums to 1: no phase has a DC gain of its own.

    `up` and `down` are in lowest terms; `rolloff` is in (0, 1].

    Returns:
        A read-only float32 array of shape (up, taps); the oldest sample's tap comes first.
    """
    multiple = ROW_MULTIPLE * (down if up == 1 else 1)
    taps = ceil(2 * num_zeros * max(up, down) / (up * multiple)) * multiple
    ages = np.arange(taps, dtype=float)[::-1]  # in samples; exact, as all its products
    ticks = np.arange(up)[:, np.newaxis] + up * ages
    periods = ticks / max(up, down) - num_zeros
    distance = np.abs(periods)
    window = np.i0(beta * np.sqrt(np.maximum(0, 1 - (distance / num_zeros) ** 2)))
    sinc = np.sinc(rolloff * periods)
    # The end itself is outside: the tap there would have no mirror image.
    design = np.where(distance < num_zeros, sinc * window, 0)
    bank = (design / design.sum(axis=1, keepdims=True)).astype(np.float32)
    bank.flags.writeable = False
    return bank
