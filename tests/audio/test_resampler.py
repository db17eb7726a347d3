"""The resampler's sound, against a float64 direct-form filter."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pytest

from pipecat_twilio.audio.resampler import SincResampler

TELEPHONE_RATES = [(8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (48000, 8000)]
ODD_RATES = [
    (12000, 8000),
    (8000, 12000),
    (22050, 8000),
    (44100, 8000),
    (8000, 44100),
    (44100, 48000),
    (11025, 8000),
    (8000, 32000),
    (40000, 8000),
    (8000, 48000),
    (8000, 56000),
    (8000, 250),
]
INTERPOLATED_RATES = [
    (8001, 8000),
    (44101, 8000),
    (47999, 8000),
    (8000, 7999),
    (8000, 47999),
    (8000, 251),
    (251, 8000),
]
RATES = TELEPHONE_RATES + ODD_RATES + INTERPOLATED_RATES


def noise(samples: int, seed: int = 1, peak: int = 12000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-peak, peak + 1, samples).astype("<i2")


def sine(frequency: float, in_rate: int, secs: float, peak: int = 32000) -> np.ndarray:
    t = np.arange(int(in_rate * secs)) / in_rate
    return np.round(peak * np.sin(2 * np.pi * frequency * t)).astype("<i2")


def samples_of(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2")


steady = partial(SincResampler, clear_after_secs=None)  # a slow machine is no pause to it


def in_chunks(resampler: SincResampler, pcm: bytes, sizes: Iterable[int]) -> bytes:
    """Feeds `pcm` in chunks of these sizes, in samples, then the rest."""
    out, start = [], 0
    for size in sizes:
        out.append(resampler.process(pcm[2 * start : 2 * (start + size)]))
        start += size
    return b"".join([*out, resampler.process(pcm[2 * start :])])


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


def response_db(
    in_rate: int, out_rate: int, frequency: float, measured: float | None = None
) -> float:
    """Returns the gain of a sine at `frequency`, measured at `measured` for aliases and images."""
    out = samples_of(steady(in_rate, out_rate).process(sine(frequency, in_rate, 0.5))).astype(float)
    out = out[int(0.05 * out_rate) :]  # past the filter's start
    window = np.hanning(len(out))
    phase = np.exp(-2j * np.pi * (measured or frequency) * np.arange(len(out)) / out_rate)
    amplitude = 2 * abs(np.dot(out * window, phase)) / window.sum()
    return 20 * np.log10(max(amplitude, 1e-9) / 32000)


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_it_agrees_with_a_float64_direct_form_filter(in_rate: int, out_rate: int) -> None:
    pcm = noise(2000 if in_rate > out_rate else 300)
    expected = direct_form(pcm, in_rate, out_rate)
    ours = samples_of(steady(in_rate, out_rate).process(pcm.tobytes()))
    # Half a step of rounding, and what float32 rounds off taps and sums; and interpolation, whose
    # error in noise as loud as this is a quarter of a step at the most.
    bound = 0.85 if (in_rate, out_rate) in INTERPOLATED_RATES else 0.55
    assert np.abs(ours - np.clip(expected, -32768, 32767)).max() <= bound


@pytest.mark.parametrize(
    "design",
    [
        *({"num_zeros": zeros} for zeros in (1, 2, 7, 44, 64, 96, 192)),
        {"rolloff": 1.0},
        {"rolloff": 0.5},
        {"beta": 0},
        {"beta": 14.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("rates", [(8000, 24000), (24000, 8000), (3, 2), (147, 160)])
def test_any_design_agrees_with_a_float64_direct_form_filter(
    rates: tuple[int, int], design: dict
) -> None:
    pcm = noise(1000)
    expected = np.clip(direct_form(pcm, *rates, **design), -32768, 32767)
    ours = samples_of(steady(*rates, **design).process(pcm.tobytes()))
    assert np.abs(ours - expected).max() <= 0.55


@pytest.mark.parametrize(("in_rate", "out_rate"), INTERPOLATED_RATES[:5])
@pytest.mark.parametrize("frequency", [300, 1000, 3400, 3900])
def test_interpolation_is_89_db_below_a_tone_and_further_for_lower_ones(
    in_rate: int, out_rate: int, frequency: int
) -> None:
    pcm = sine(frequency, in_rate, 0.1)
    error = samples_of(steady(in_rate, out_rate).process(pcm)) - direct_form(pcm, in_rate, out_rate)
    error = error[out_rate // 100 :]  # past the onset, which is no tone
    # Between points that are 1/192 of a period apart, the chord of a sine of so many radians a
    # period is off by an eighth of the square of an arc. The rest is rounding, of float32 as well.
    radians = 2 * np.pi * frequency / min(in_rate, out_rate)
    assert np.abs(error).max() <= 0.7 + 32000 * (radians / 192) ** 2 / 8


@pytest.mark.parametrize(("in_rate", "out_rate"), TELEPHONE_RATES)
def test_the_telephone_band_passes_within_a_tenth_of_a_decibel(in_rate: int, out_rate: int) -> None:
    for frequency in (60, 300, 1000, 2000, 3000, 3300, 3400):
        assert abs(response_db(in_rate, out_rate, frequency)) < 0.1


@pytest.mark.parametrize(
    ("in_rate", "out_rate"),
    [(16000, 8000), (24000, 8000), (48000, 8000), (44100, 8000), (44101, 8000)],
)
def test_going_down_nothing_from_4000_hz_up_comes_through_as_an_alias(
    in_rate: int, out_rate: int
) -> None:
    for frequency in (4010, 4200, 4600, 5000, 6100, 7900):
        alias = abs(frequency - 8000 * round(frequency / 8000))
        assert response_db(in_rate, out_rate, frequency, alias) < -84


@pytest.mark.parametrize("out_rate", [16000, 24000, 48000, 44100, 47999])
def test_going_up_nothing_appears_from_4000_hz_up(out_rate: int) -> None:
    for frequency in (100, 400, 1900, 3400, 3990):
        for image in (8000 - frequency, 8000 + frequency):
            if image < out_rate / 2:
                assert response_db(8000, out_rate, frequency, image) < -84


@pytest.mark.parametrize(("in_rate", "out_rate"), TELEPHONE_RATES)
def test_the_delay_is_exactly_4_ms(in_rate: int, out_rate: int) -> None:
    resampler = steady(in_rate, out_rate)
    assert resampler.delay_secs == 0.004
    click = np.zeros(in_rate // 50, "<i2")
    click[0] = 32000
    answer = samples_of(resampler.process(click.tobytes()))
    peak = int(np.argmax(answer))
    assert peak == out_rate * 4 // 1000
    # Linear phase: the answer is its own mirror image around the peak.
    np.testing.assert_array_equal(answer[:peak][::-1][: peak - 1], answer[peak + 1 : 2 * peak])


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_after_n_samples_in_exactly_ceil_n_up_by_down_are_out(in_rate: int, out_rate: int) -> None:
    resampler = steady(in_rate, out_rate)
    taken = given = 0
    for size in [1, 0, 2, 159, 160, 7, 1, 1, 1024, 1023, 1025, 5000, 160]:
        given += len(resampler.process(bytes(2 * size))) // 2
        taken += size
        assert given == -(-taken * out_rate // in_rate)


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_chunking_does_not_change_a_bit(in_rate: int, out_rate: int) -> None:
    pcm = noise(6000).tobytes()
    whole = steady(in_rate, out_rate).process(pcm)
    for size in (1, 3, 160, 1023, 1024, 1025):
        assert in_chunks(steady(in_rate, out_rate), pcm, [size] * (5999 // size)) == whole
    random = np.random.default_rng(7).integers(0, 400, 20).tolist()
    assert in_chunks(steady(in_rate, out_rate), pcm, random) == whole


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_loud_audio_saturates_instead_of_wrapping(in_rate: int, out_rate: int) -> None:
    square = np.where(np.arange(400) // 20 % 2, 32767, -32768).astype("<i2")
    ours = samples_of(steady(in_rate, out_rate).process(square.tobytes())).astype(int)
    expected = np.clip(np.rint(direct_form(square, in_rate, out_rate)), -32768, 32767)
    assert np.abs(ours - expected).max() <= 1
    if (in_rate, out_rate) == (8000, 16000):
        assert ours.max() == 32767
        assert ours.min() == -32768


@pytest.mark.parametrize("rates", RATES)
def test_a_constant_stays_that_constant(rates: tuple[int, int]) -> None:
    # Unit gain at DC in every phase, and rounding to the nearest: no offset, at any level.
    secs = 2 * steady(*rates).delay_secs  # the filter's length
    for level in (-32768, -1, 0, 1, 2, 12345, 32767):
        pcm = np.full(int(rates[0] * (secs + 0.01 + 3 / rates[1])) + 2, level, "<i2").tobytes()
        out = samples_of(steady(*rates).process(pcm))[int(rates[1] * secs) + 1 :]
        assert set(out.tolist()) == {level}


def test_halves_are_rounded_to_even() -> None:
    # Two taps of 1/2: every second output is the mean of two neighbours.
    means = SincResampler(1, 2, num_zeros=1, rolloff=1e-9, beta=0, clear_after_secs=None)
    pcm = np.array([0, 1, 2, 3, 4, -1, -2, -3, 32767, 32766, -32768, -32767], "<i2")
    expected = np.rint(pcm[:-1] / 2 + pcm[1:] / 2)  # NumPy rounds halves to even
    assert samples_of(means.process(pcm))[3::2].tolist() == expected.tolist()
