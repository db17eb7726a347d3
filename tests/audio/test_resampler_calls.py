"""How the resampler is used: pauses, flushing, arguments, calls at the same time."""

import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from reference_filter import RATES, noise, steady

from pipecat_twilio.audio.resampler import SincResampler

# One for each loop: rounds on the way up and down, and rates that are no multiples.
FEW_RATES = [(8000, 16000), (24000, 8000), (44100, 8000)]


@pytest.mark.parametrize("rates", RATES)
def test_flush_returns_what_more_silence_would_have_pushed_out(rates: tuple[int, int]) -> None:
    pcm = noise(rates[0] // 50 + 3).tobytes()
    resampler = steady(*rates)
    out = resampler.process(pcm) + resampler.flush()
    secs = len(pcm) / 2 / rates[0] + resampler.delay_secs
    assert len(out) / 2 == pytest.approx(secs * rates[1], abs=1)
    silence = bytes(2 * (int(rates[0] * resampler.delay_secs) + 2))
    assert steady(*rates).process(pcm + silence).startswith(out)


@pytest.mark.parametrize("rates", FEW_RATES)
@pytest.mark.parametrize("end", [SincResampler.flush, SincResampler.reset])
def test_after_flush_and_reset_it_is_as_new(rates: tuple[int, int], end: Callable) -> None:
    pcm = noise(1001).tobytes()
    resampler = SincResampler(*rates)
    resampler.process(pcm, 1000)
    end(resampler)
    assert resampler.flush() == b""
    assert resampler.process(pcm, 0) == steady(*rates).process(pcm)


@pytest.mark.parametrize("rates", FEW_RATES)
@pytest.mark.parametrize(
    ("pause_secs", "is_pause"),
    [(0.02, False), (0.199, False), (0.201, True), (60, True), (-3600, False)],
)
@pytest.mark.parametrize("samples", [479, 50_000])
def test_after_a_pause_output_is_that_of_a_new_object(
    rates: tuple[int, int], samples: int, pause_secs: float, is_pause: bool
) -> None:
    before, after = noise(481).tobytes(), noise(samples, seed=2).tobytes()
    resampler, without_pauses = SincResampler(*rates), steady(*rates)
    resampler.process(before, 1000.0)
    resampler.process(b"", 1000 + pause_secs)  # neither ends nor shortens a pause
    without_pauses.process(before, 1000.0)
    expected = (steady(*rates) if is_pause else without_pauses).process(after, 1e9)
    assert resampler.process(after, 1000 + pause_secs) == expected


def test_an_empty_chunk_does_not_begin_a_stream() -> None:
    pcm = noise(160).tobytes()
    resampler = SincResampler(8000, 16000)
    assert resampler.process(b"", 1.0) == b""
    assert resampler.flush() == b""
    assert resampler.process(pcm, 5.0) == steady(8000, 16000).process(pcm)


def test_pauses_are_told_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = noise(160).tobytes()
    moment = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    resampler = SincResampler(8000, 16000)
    out = resampler.process(pcm)
    moment += 0.1
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert out + resampler.process(pcm) == steady(8000, 16000).process(pcm + pcm)
    moment += 0.201
    assert resampler.process(pcm) == out


def test_equal_rates_return_a_copy_of_the_bytes() -> None:
    resampler = SincResampler(44101, 44101)
    pcm = noise(160).tobytes()
    mutable = bytearray(pcm)
    out = resampler.process(mutable, 1.0)
    mutable[:] = bytes(len(mutable))
    assert out == resampler.process(pcm, 9.0) == pcm
    assert resampler.flush() == b""
    assert resampler.delay_secs == 0


HUGE = 10**400
# For each argument, values that are out of its range, and values that are no such numbers.
REFUSED = {
    "in_rate": ([0, -8000, 768_001, 2**63, HUGE], [8000.0, "8000", None, True]),
    "out_rate": ([0, 249, 2**31, HUGE], [16000.0, "8000", None, True]),
    "clear_after_secs": ([-1, float("nan"), HUGE], ["soon"]),
    "num_zeros": ([0, -1, 193, HUGE], [1.5, "32", None, True]),
    "rolloff": ([0, -0.5, 1.01, float("nan"), HUGE, Fraction(HUGE)], ["1", None, 1j]),
    "beta": ([-1, 701, float("inf"), float("nan"), HUGE], ["1", None, 1j]),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(("error", "values"), [(ValueError, 0), (TypeError, 1)])
def test_an_argument_that_cannot_be_used_is_refused_by_name(
    error: type, values: int, name: str
) -> None:
    for value in REFUSED[name][values]:
        with pytest.raises(error, match=name) as raised:
            SincResampler(**{"in_rate": 8000, "out_rate": 16000} | {name: value})
        assert f"{value!r:.99}" in str(raised.value)


def test_arguments_at_their_limits_make_a_filter() -> None:
    for rates, zeros in (((768_000, 24_000), 192), ((1, 32), 1), ((44100, 32000), 128)):
        for rolloff, beta in ((1, 0), (1e-9, 700), (Fraction(1, 2), True)):
            resampler = steady(*rates, num_zeros=zeros, rolloff=rolloff, beta=beta)
            pcm = np.full(int(2 * rates[0] * resampler.delay_secs) + 2, 30_000, "<i2")
            (last,) = np.frombuffer(resampler.process(pcm)[-2:], "<i2")
            assert abs(last - 30_000) <= 1


@pytest.mark.parametrize("rates", [(8000, 16000), (8000, 8000)])
@pytest.mark.parametrize(
    ("pcm", "now", "error", "text"),
    [
        (bytes(321), None, ValueError, "pcm must hold whole 16-bit samples, got 321 bytes"),
        ("text", None, TypeError, "pcm must be bytes-like, got str"),
        (memoryview(bytes(8))[::2], None, ValueError, "pcm must be C-contiguous"),
        (bytes(2), "soon", TypeError, "now must be a number, got 'soon'"),
        (bytes(2), HUGE, ValueError, "now must fit a float, got 1000"),
        (bytes(2), float("nan"), ValueError, "now must be finite, got nan"),
        (bytes(2), float("inf"), ValueError, "now must be finite, got inf"),
        (bytes(2), type("Now", (), {"__float__": lambda _: 1 / 0})(), ZeroDivisionError, "zero"),
    ],
)
def test_input_that_is_refused_leaves_the_stream_as_it_was(
    rates: tuple[int, int], pcm: object, now: object, error: type, text: str
) -> None:
    resampler = SincResampler(*rates)
    audio = noise(320).tobytes()
    first = resampler.process(audio[:320], 1)
    with pytest.raises(error, match=text):
        resampler.process(pcm, now)
    assert first + resampler.process(audio[320:], 1.1) == steady(*rates).process(audio)


INTRUSIONS = {
    "process": lambda resampler: resampler.process(bytes(320)),
    "process nothing": lambda resampler: resampler.process(b""),
    "flush": SincResampler.flush,
    "reset": SincResampler.reset,
}


@pytest.mark.parametrize("intrude", INTRUSIONS.values(), ids=INTRUSIONS)
@pytest.mark.parametrize(("method", "secs"), [("__float__", 1.0), ("__index__", 1)])
def test_a_call_from_within_the_conversion_of_an_argument_is_refused_and_changes_nothing(
    intrude: Callable, method: str, secs: float
) -> None:
    resampler = SincResampler(44100, 8000)
    pcm = noise(882).tobytes()

    def intruding(_: object) -> float:
        with pytest.raises(RuntimeError, match="in use by another call"):
            intrude(resampler)
        return secs

    now = type("Now", (), {method: intruding})()
    out = resampler.process(pcm, 1) + resampler.process(pcm, now) + resampler.process(pcm, now)
    assert out == steady(44100, 8000).process(pcm * 3)
