"""The resampler's sound, against a float64 direct-form filter."""

import numpy as np
import pytest
from reference_filter import RATES, TELEPHONE_RATES, direct_form, noise, samples_of, steady

DESIGNS = [
    {},
    *({"num_zeros": zeros} for zeros in (1, 2, 7, 44, 96, 192)),
    *({"rolloff": share} for share in (1.0, 0.5)),
    *({"beta": shape} for shape in (0, 14.0)),
]


def response_db(in_rate: int, out_rate: int, sent: float, measured: float) -> float:
    """Returns the level at a frequency of what a sine of another, or the same, comes out as."""
    sine = np.round(32000 * np.sin(2 * np.pi * sent * np.arange(in_rate // 2) / in_rate))
    out = samples_of(steady(in_rate, out_rate).process(sine.astype("<i2").tobytes()))
    out = out[int(0.05 * out_rate) :]  # past the filter's start
    window = np.hanning(len(out))
    phase = np.exp(-2j * np.pi * measured * np.arange(len(out)) / out_rate)
    amplitude = 2 * abs(np.dot(out * window, phase)) / window.sum()
    return 20 * np.log10(max(amplitude, 1e-9) / 32000)


@pytest.mark.parametrize(
    ("rates", "design"),
    [
        *((rates, {}) for rates in RATES),
        *((rates, d) for rates in [(8000, 24000), (24000, 8000), (147, 160)] for d in DESIGNS),
    ],
    ids=str,
)
def test_output_is_that_of_a_float64_direct_form_filter(rates: tuple, design: dict) -> None:
    samples = 2000 if rates[0] > rates[1] else 500
    loud = np.where(np.arange(samples) // 20 % 2, 32767, -32768).astype("<i2")
    for pcm in (noise(samples), loud):
        expected = np.clip(direct_form(pcm, *rates, **design), -32768, 32767)
        ours = samples_of(steady(*rates, **design).process(pcm.tobytes()))
        assert np.abs(ours - expected).max() <= 0.55  # rounding, and what float32 rounds off


@pytest.mark.parametrize(("in_rate", "out_rate"), TELEPHONE_RATES)
def test_telephone_band_passes_4_ms_late_within_a_tenth_of_a_decibel(in_rate, out_rate) -> None:
    assert steady(in_rate, out_rate).delay_secs == 0.004
    for hz in (60, 300, 1000, 2000, 3000, 3300, 3400):
        assert abs(response_db(in_rate, out_rate, hz, hz)) < 0.1


@pytest.mark.parametrize("rate", [16000, 24000, 48000, 44100])
def test_aliases_and_images_from_4000_hz_up_are_84_db_down(rate: int) -> None:
    for hz in (4010, 4200, 4600, 5000, 6100, 7900):
        assert response_db(rate, 8000, hz, abs(hz - 8000 * round(hz / 8000))) < -84
    for hz in (100, 400, 1900, 3400, 3990):
        for image in (8000 - hz, 8000 + hz):
            if image < rate / 2:
                assert response_db(8000, rate, hz, image) < -84


@pytest.mark.parametrize("rates", RATES)
def test_chunks_of_any_size_give_the_same_bytes_and_each_sample_as_soon_as_it_is_due(
    rates: tuple[int, int],
) -> None:
    pcm = noise(6000).tobytes()
    whole = steady(*rates).process(pcm)
    random = np.random.default_rng(7).integers(0, 400, 10).tolist()
    for sizes in (*([size] * 6000 for size in (1, 3, 160, 1023, 1024, 1025)), random):
        resampler, out, taken = steady(*rates), b"", 0
        for size in sizes:
            chunk = pcm[2 * taken : 2 * (taken + size)]
            taken += len(chunk) // 2
            out += resampler.process(chunk)
            assert len(out) // 2 == -(-taken * rates[1] // rates[0])
        assert whole.startswith(out)
        assert out == whole or sizes is random


def test_half_a_step_is_rounded_to_even() -> None:
    # Two taps of 1/2: every second output is the mean of two neighbours.
    means = steady(1, 2, num_zeros=1, rolloff=1e-9, beta=0)
    pcm = np.array([0, 1, 2, 3, 4, -1, -2, -3, 32767, 32766, -32768, -32767], "<i2")
    expected = np.rint(pcm[:-1] / 2 + pcm[1:] / 2)  # NumPy rounds halves to even
    assert samples_of(means.process(pcm))[3::2].tolist() == expected.tolist()
