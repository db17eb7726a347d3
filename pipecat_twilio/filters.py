"""Design of the resampler's filter: a Kaiser-windowed sinc, cut into a polyphase bank.

The vocabulary is resampy's: `num_zeros` periods of the lower rate on each side of the sinc's
centre, cut off at `rolloff` times the lower Nyquist frequency, under a Kaiser window of `beta`.

Source: J. O. Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/
"""

from functools import lru_cache
from math import ceil, gcd, prod

import numpy as np
from numpy.typing import NDArray

TAPS_MULTIPLE = 8
"""Rows are padded to this many taps, the step of the widest filter loop (fir.h)."""

MAX_BANK_TAPS = 1 << 19
"""The most taps a bank may hold: 2 MiB, enough for 7999 to 8000 Hz."""


def reduced_ratio(in_rate: int, out_rate: int) -> tuple[int, int]:
    """Returns `(up, down)`: `out_rate / in_rate` in lowest terms.

    Raises:
        ValueError: A rate is not a positive integer.
    """
    for rate in (in_rate, out_rate):
        if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
            raise ValueError(
                "in_rate and out_rate must be positive integers in Hz, "
                f"got in_rate={in_rate!r} and out_rate={out_rate!r}"
            )
    divisor = gcd(in_rate, out_rate)
    return out_rate // divisor, in_rate // divisor


def bank_taps(up: int, down: int, num_zeros: int) -> int:
    """Returns how many taps each of the bank's `up` rows has, padding included."""
    return _padded(2 * num_zeros * max(up, down) / up)


def _padded(taps: float) -> int:
    return ceil(taps / TAPS_MULTIPLE) * TAPS_MULTIPLE


def zeros_around(taps: int, down: int) -> int:
    """Returns how many zeros lie before and after a row: what the filter loop slides it by.

    None where that would add more than a quarter to its work.
    """
    zeros = _padded(4 * down)
    return zeros if 4 * zeros <= taps else 0


@lru_cache(maxsize=64)  # a process sees few pairs of rates; 64 banks are 128 MiB at the very most
def polyphase_bank(
    up: int, down: int, num_zeros: int, rolloff: float, beta: float
) -> NDArray[np.float32]:
    """Designs the filter for `up / down`; the same arguments give the same, shared array.

    The sinc is sampled at `up` ticks per input sample and centred `num_zeros` periods of the
    lower rate after its start, so the delay is exactly that, and the phase is linear. A row
    holds the taps for one phase, oldest sample first, and sums to 1: no phase has a DC gain of
    its own. Row `r` is that of output number `r`, which lies `r * down % up` ticks after an input
    sample, so that consecutive outputs read consecutive rows.

    Args:
        up: Outputs per `down` inputs, in lowest terms.
        down: Inputs per `up` outputs.
        num_zeros: Half length of the filter in periods of the lower rate.
        rolloff: Cutoff as a share of the lower Nyquist frequency, in (0, 1].
        beta: Shape of the Kaiser window; more is a deeper stop band and a wider transition.

    Returns:
        A read-only float32 array of shape (up, taps); in memory `zeros_around` each row.
    """
    half = num_zeros * max(up, down)
    periods = np.arange(-half, half) / max(up, down)
    window = np.i0(beta * np.sqrt(1 - (periods / num_zeros) ** 2)) / np.i0(beta)
    sinc = np.sinc(rolloff * periods) * window
    sinc[0] = 0  # the one tap without a mirror image
    taps = bank_taps(up, down, num_zeros)
    padded = np.zeros(up * taps)
    padded[: sinc.size] = sinc
    phases = np.arange(up) * down % up
    bank = padded.reshape(-1, up).T[phases, ::-1]
    zeros = zeros_around(taps, down)
    rows = _aligned_zeros(up + 1, zeros + taps)[:up, zeros:]
    rows[:] = bank / bank.sum(axis=1, keepdims=True)
    rows.flags.writeable = False
    return rows


@lru_cache(maxsize=64)
def half_filters(
    up: int, down: int, num_zeros: int, rolloff: float, beta: float
) -> NDArray[np.float32]:
    """Halves the rows of a bank for `up` or `down` of 1, as a fast FIR algorithm takes them.

    `down` samples at a time complete `up` outputs: a round. Of the taps, every first round has one
    half, and every second one the other; fir_whole.h says what they and their sum are for.

    Args:
        up: As for `polyphase_bank`, as all that follows.
        down: 1, or anything where `up` is.
        num_zeros: Half length of the filter.
        rolloff: Cutoff.
        beta: Shape of the window.

    Returns:
        A read-only float32 array of shape (up, 3, down, num_zeros): of each row the taps for first
        rounds, for both added up, and for second ones; of each of these, by sample of a round.
    """
    bank = polyphase_bank(up, down, num_zeros, rolloff, beta)
    first, second = bank.reshape(up, num_zeros, 2, down).transpose(2, 0, 3, 1)
    halves = _aligned_zeros(up, 3, down, num_zeros)
    halves[:] = np.stack([first, first + second, second], axis=1)
    halves.flags.writeable = False
    return halves


def _aligned_zeros(*shape: int) -> NDArray[np.float32]:
    """Returns an array that starts on a cache line, so that few loads of taps need two of them."""
    size, line = prod(shape), 64 // 4
    room = np.zeros(size + line, dtype=np.float32)
    start = -(room.ctypes.data // 4) % line
    return room[start : start + size].reshape(shape)
