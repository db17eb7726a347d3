"""What the resampler is measured with: signals, rates, and the filter in float64."""

from functools import partial

import numpy as np

from pipecat_twilio.audio.resampler import SincResampler

TELEPHONE_RATES = [(8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (48000, 8000)]
OTHER_RATES = [
    *((12000, 8000), (8000, 12000), (22050, 8000), (8000, 44100), (44100, 48000), (8000, 32000)),
    *((40000, 8000), (56000, 8000), (8000, 250), (1000, 32000), (47950, 8000), (8000, 47950)),
]
RATES = TELEPHONE_RATES + OTHER_RATES

steady = partial(SincResampler, clear_after_secs=None)  # a slow machine is no pause to it


def noise(samples: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-12000, 12001, samples).astype("<i2")


def samples_of(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(int)


def direct_form(
    pcm: np.ndarray,
    in_rate: int,
    out_rate: int,
    num_zeros: int = 32,
    rolloff: float = 0.9125,
    beta: float = 8.5,
) -> np.ndarray:
    """Computes each output by itself from the sinc's definition, in float64, without rounding."""
    lower = min(in_rate, out_rate)
    half = num_zeros * in_rate / lower
    count = -(-len(pcm) * out_rate // in_rate)
    # The filter is centred `num_zeros` periods of the lower rate before the output's moment.
    centre = np.arange(count)[:, np.newaxis] * (in_rate / out_rate) - half
    n = np.floor(centre).astype(int) + np.arange(-int(half) - 2, int(half) + 3)
    periods = (centre - n) * (lower / in_rate)
    inside = np.abs(periods) < num_zeros - 1e-9
    kaiser = np.i0(beta * np.sqrt(np.where(inside, 1 - (periods / num_zeros) ** 2, 0)))
    taps = np.where(inside, np.sinc(rolloff * periods) * kaiser, 0)
    taps /= taps.sum(axis=1, keepdims=True)  # a constant stays that constant
    taken = (n >= 0) & (n < len(pcm))
    return (taps * np.where(taken, pcm[np.where(taken, n, 0)].astype(float), 0)).sum(axis=1)
