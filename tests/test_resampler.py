"""The resampler against a float64 direct-form filter, and the promises of a live stream."""

import sys
import threading
import time
from collections.abc import Iterable
from functools import partial

import numpy as np
import pytest

from pipecat_twilio.resampler import SincResampler

TELEPHONE_RATES = [(8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (48000, 8000)]
ODD_RATES = [
    (12000, 8000),
    (8000, 12000),
    (22050, 8000),
    (44100, 8000),
    (8000, 44100),
    (44100, 48000),
    (11025, 8000),
    (7999, 8000),
    (8000, 1),
    (8000, 32000),
    (40000, 8000),
    (8000, 48000),
    (8000, 56000),
]
RATES = TELEPHONE_RATES + ODD_RATES


def noise(samples: int, seed: int = 1, peak: int = 12000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-peak, peak + 1, samples).astype("<i2")


def samples_of(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2")


steady = partial(SincResampler, clear_after_secs=None)  # a slow machine is no pause to it


def in_chunks(resampler: SincResampler, pcm: bytes, sizes: Iterable[int]) -> bytes:
    """Feeds `pcm` in chunks of so many samples, then the rest."""
    out, start = [], 0
    for size in sizes:
        out.append(resampler.process(pcm[2 * start : 2 * (start + size)]))
        start += size
    return b"".join([*out, resampler.process(pcm[2 * start :])])


def direct_form(pcm: np.ndarray, in_rate: int, out_rate: int) -> np.ndarray:
    """Each output as its own sum, from the sinc's definition, in float64; not rounded."""
    lower = min(in_rate, out_rate)
    count = -(-len(pcm) * out_rate // in_rate)
    out = np.empty(count)
    half = 32 / lower
    for m in range(count):
        # The filter is centred 32 periods of the lower rate before the output's moment.
        first = max(0, int(np.floor((m / out_rate - 2 * half) * in_rate)) - 1)
        last = min(len(pcm), m * in_rate // out_rate + 1)
        n = np.arange(first, last)
        secs = m / out_rate - half - n / in_rate
        inside = np.abs(secs * lower) < 32 - 1e-9
        periods = secs[inside] * lower
        kaiser = np.i0(8.5 * np.sqrt(1 - (periods / 32) ** 2)) / np.i0(8.5)
        taps = np.sinc(0.9125 * periods) * kaiser
        gain = 0.9125 * lower / in_rate  # of the sinc's continuous counterpart
        out[m] = np.dot(taps * gain, pcm[n[inside]].astype(float))
    return out


def response_db(
    in_rate: int, out_rate: int, frequency: float, measured: float | None = None
) -> float:
    """Gain of a sine at `frequency`, seen at `measured` (where aliases and images appear)."""
    secs = 0.5
    t = np.arange(int(in_rate * secs)) / in_rate
    sine = np.round(32000 * np.sin(2 * np.pi * frequency * t)).astype("<i2")
    out = samples_of(SincResampler(in_rate, out_rate).process(sine.tobytes())).astype(float)
    out = out[int(0.05 * out_rate) :]  # past the filter's start
    window = np.hanning(len(out))
    phase = np.exp(-2j * np.pi * (measured or frequency) * np.arange(len(out)) / out_rate)
    amplitude = 2 * abs(np.dot(out * window, phase)) / window.sum()
    return 20 * np.log10(max(amplitude, 1e-9) / 32000)


@pytest.mark.parametrize(("in_rate", "out_rate"), [rates for rates in RATES if rates[1] > 1])
def test_it_agrees_with_a_float64_direct_form_filter(in_rate: int, out_rate: int) -> None:
    pcm = noise(800)
    expected = direct_form(pcm, in_rate, out_rate)
    ours = samples_of(SincResampler(in_rate, out_rate).process(pcm.tobytes()))
    # Half a step of rounding, and the gain of each phase, which the bank makes exactly 1: the
    # sinc alone leaves up to 1e-5 of it, 0.12 of a step at this level.
    assert np.abs(ours - np.clip(expected, -32768, 32767)).max() <= 1


@pytest.mark.parametrize(("in_rate", "out_rate"), TELEPHONE_RATES)
def test_the_telephone_band_passes_within_a_tenth_of_a_decibel(in_rate: int, out_rate: int) -> None:
    for frequency in (60, 300, 1000, 2000, 3000, 3300, 3400):
        assert abs(response_db(in_rate, out_rate, frequency)) < 0.1


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(16000, 8000), (24000, 8000), (48000, 8000), (44100, 8000)]
)
def test_going_down_nothing_from_4000_hz_up_comes_through_as_an_alias(
    in_rate: int, out_rate: int
) -> None:
    for frequency in (4010, 4200, 4600, 5000, 6100, 7900):
        alias = abs(frequency - 8000 * round(frequency / 8000))
        assert response_db(in_rate, out_rate, frequency, alias) < -84


@pytest.mark.parametrize("out_rate", [16000, 24000, 48000, 44100])
def test_going_up_nothing_appears_from_4000_hz_up(out_rate: int) -> None:
    for frequency in (100, 400, 1900, 3400, 3990):
        for image in (8000 - frequency, 8000 + frequency):
            if image < out_rate / 2:
                assert response_db(8000, out_rate, frequency, image) < -84


@pytest.mark.parametrize(("in_rate", "out_rate"), TELEPHONE_RATES)
def test_the_delay_is_exactly_4_ms(in_rate: int, out_rate: int) -> None:
    resampler = SincResampler(in_rate, out_rate)
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


@pytest.mark.parametrize(("in_rate", "out_rate"), [*TELEPHONE_RATES, (22050, 8000), (44100, 8000)])
def test_20_ms_in_is_20_ms_out_on_every_call(in_rate: int, out_rate: int) -> None:
    resampler = steady(in_rate, out_rate)
    for _ in range(50):
        assert len(resampler.process(bytes(in_rate // 50 * 2))) == out_rate // 50 * 2


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
    square = np.where(np.arange(800) // 20 % 2, 32767, -32768).astype("<i2")
    ours = samples_of(SincResampler(in_rate, out_rate).process(square.tobytes())).astype(int)
    if out_rate > 1:
        expected = np.clip(np.rint(direct_form(square, in_rate, out_rate)), -32768, 32767)
        assert np.abs(ours - expected).max() <= 1
    if (in_rate, out_rate) == (8000, 16000):
        assert ours.max() == 32767
        assert ours.min() == -32768


def test_a_constant_stays_that_constant() -> None:
    # Unit gain at DC in every phase, and rounding to the nearest: no offset, at any level.
    for level in (-32768, -1, 0, 1, 2, 12345, 32767):
        for in_rate, out_rate in RATES:
            pcm = np.full(in_rate // 20, level, "<i2").tobytes()
            out = samples_of(SincResampler(in_rate, out_rate).process(pcm))
            assert set(out[int(0.01 * out_rate) + 1 :].tolist()) <= {level}


@pytest.mark.parametrize(("in_rate", "out_rate"), TELEPHONE_RATES + ODD_RATES[:7])
def test_flush_gives_the_rest_and_resets(in_rate: int, out_rate: int) -> None:
    pcm = noise(in_rate // 10)
    resampler = SincResampler(in_rate, out_rate)
    out = resampler.process(pcm.tobytes()) + resampler.flush()
    held = out_rate * resampler.delay_secs
    assert len(out) // 2 == pytest.approx(out_rate // 10 + held, abs=1)
    # The same as if silence had followed.
    silence = np.zeros(in_rate // 100, "<i2")
    longer = SincResampler(in_rate, out_rate).process(np.concatenate([pcm, silence]).tobytes())
    assert longer.startswith(out)
    assert resampler.flush() == b""
    assert resampler.process(pcm.tobytes()) == SincResampler(in_rate, out_rate).process(
        pcm.tobytes()
    )


def test_flush_of_a_new_resampler_is_empty() -> None:
    assert SincResampler(8000, 16000).flush() == b""
    resampler = SincResampler(8000, 16000)
    resampler.process(b"")
    assert resampler.flush() == b""


def test_reset_forgets_all() -> None:
    resampler = SincResampler(22050, 8000)
    resampler.process(noise(1234).tobytes())
    resampler.reset()
    pcm = noise(500, seed=2).tobytes()
    assert resampler.process(pcm) == SincResampler(22050, 8000).process(pcm)


class Clock:
    """A clock that stands where it is put."""

    secs = 1000.0

    def __call__(self) -> float:
        return self.secs


@pytest.mark.parametrize(
    ("pause_secs", "cleared"),
    [(0.02, False), (0.199, False), (0.201, True), (60, True), (-3600, False)],
)
def test_history_is_dropped_after_a_pause_and_only_then(pause_secs: float, cleared: bool) -> None:
    clock = Clock()
    resampler = SincResampler(8000, 16000, clock=clock, clear_after_secs=0.2)
    before, after = noise(160).tobytes(), noise(160, seed=2).tobytes()
    resampler.process(before)
    clock.secs = 1000 + pause_secs
    continued = SincResampler(8000, 16000, clear_after_secs=None)
    continued.process(before)
    expected = SincResampler(8000, 16000) if cleared else continued
    assert resampler.process(after) == expected.process(after)


def test_a_time_that_is_given_is_used_instead_of_the_clock() -> None:
    pcm = noise(480).tobytes()
    resampler = SincResampler(8000, 16000, clock=lambda: pytest.fail("asked"), clear_after_secs=0.2)
    first = resampler.process(pcm[:320], 5.0)
    second = resampler.process(pcm[320:640], 5.1)
    assert first + second == SincResampler(8000, 16000).process(pcm[:640])
    assert resampler.process(pcm[640:], 5.5) == SincResampler(8000, 16000).process(pcm[640:])
    with pytest.raises(TypeError):
        resampler.process(b"", "soon")


def test_none_never_drops_history() -> None:
    clock = Clock()
    resampler = SincResampler(8000, 16000, clock=clock, clear_after_secs=None)
    pcm = noise(320).tobytes()
    first = resampler.process(pcm[:320])
    clock.secs += 1e6
    assert first + resampler.process(pcm[320:]) == SincResampler(8000, 16000).process(pcm)


def test_a_step_of_the_wall_clock_is_not_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    resampler = SincResampler(8000, 16000)
    pcm = noise(320).tobytes()
    first = resampler.process(pcm[:320])
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert first + resampler.process(pcm[320:]) == SincResampler(8000, 16000).process(pcm)


def test_equal_rates_pass_the_bytes_through() -> None:
    resampler = SincResampler(8000, 8000)
    pcm = noise(160).tobytes()
    assert resampler.process(pcm) == pcm
    assert resampler.process(bytearray(pcm)) == pcm
    assert resampler.flush() == b""
    assert resampler.delay_secs == 0


@pytest.mark.parametrize(("in_rate", "out_rate"), [(8000, 16000), (8000, 8000)])
def test_any_c_contiguous_buffer_is_taken_and_never_aliased(in_rate: int, out_rate: int) -> None:
    pcm = noise(5000)
    expected = SincResampler(in_rate, out_rate).process(pcm.tobytes())
    mutable = bytearray(pcm.tobytes())
    for data in (
        mutable,
        memoryview(mutable),
        memoryview(b"x" + mutable)[1:],
        pcm,
        pcm.reshape(2, -1),
    ):
        assert SincResampler(in_rate, out_rate).process(data) == expected
    out = SincResampler(in_rate, out_rate).process(mutable)
    mutable[:] = bytes(len(mutable))
    assert out == expected


@pytest.mark.parametrize(
    "rates", [(0, 8000), (8000, -1), (8000.0, 8000), ("8000", 8000), (8000, None), (True, 8000)]
)
def test_rates_that_are_no_positive_integers_are_named(rates: tuple) -> None:
    with pytest.raises(ValueError, match=f"in_rate={rates[0]!r} and out_rate={rates[1]!r}"):
        SincResampler(*rates)


@pytest.mark.parametrize(
    "rates", [(192001, 8000), (8000, 192001), (1, 192000), (44099, 48000), (2**70, 3)]
)
def test_rates_that_need_too_large_a_bank_are_named(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"in_rate={rates[0]} to out_rate={rates[1]} needs a bank"):
        SincResampler(*rates)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clear_after_secs": -1},
        {"clear_after_secs": float("nan")},
        {"num_zeros": 0},
        {"num_zeros": 1.5},
        {"rolloff": 0},
        {"rolloff": 1.01},
        {"beta": -1},
        {"beta": float("inf")},
    ],
)
def test_other_arguments_out_of_range_are_named(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be .* got {wrong[name]!r}"):
        SincResampler(8000, 16000, **wrong)


def test_a_clock_that_cannot_be_called_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="clock must be callable, got 5"):
        SincResampler(8000, 16000, clock=5)


@pytest.mark.parametrize("rates", [(8000, 16000), (8000, 8000)])
def test_an_odd_number_of_bytes_is_no_pcm(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pcm must hold whole 16-bit samples, got 321 bytes"):
        SincResampler(*rates).process(bytes(321))


def test_what_is_no_buffer_is_a_type_error_that_names_the_argument() -> None:
    with pytest.raises(TypeError, match="pcm must be bytes-like, got str"):
        SincResampler(8000, 16000).process("text")


def test_refused_input_leaves_the_stream_as_it_was() -> None:
    resampler = steady(8000, 16000)
    pcm = noise(320).tobytes()
    first = resampler.process(pcm[:320])
    with pytest.raises(ValueError, match="got 3 bytes"):
        resampler.process(b"abc")
    assert first + resampler.process(pcm[320:]) == steady(8000, 16000).process(pcm)


def test_its_state_is_a_few_kib() -> None:
    for rates in TELEPHONE_RATES:
        assert sys.getsizeof(SincResampler(*rates)) < 8 << 10


def test_separate_objects_are_independent_across_threads() -> None:
    pcm = noise(200_000).tobytes()
    expected = {rates: steady(*rates).process(pcm) for rates in TELEPHONE_RATES}
    wrong: list[tuple[int, int]] = []

    def convert(rates: tuple[int, int]) -> None:
        for size in (160, 50_000):
            resampler = steady(*rates)
            if in_chunks(resampler, pcm, [size] * (100_000 // size)) != expected[rates]:
                wrong.append(rates)

    threads = [threading.Thread(target=convert, args=(rates,)) for rates in TELEPHONE_RATES * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_object_in_two_threads_is_refused_not_corrupted() -> None:
    resampler = SincResampler(8000, 24000)
    pcm = noise(20_000_000).tobytes()
    refused: list[RuntimeError] = []
    done = threading.Event()

    def intrude() -> None:
        while not done.is_set():
            try:
                resampler.process(b"")
            except RuntimeError as error:
                refused.append(error)
                return

    thread = threading.Thread(target=intrude)
    thread.start()
    out = resampler.process(pcm)
    done.set()
    thread.join()
    assert out == SincResampler(8000, 24000).process(pcm)
    assert "in use by another thread" in str(refused[0])
