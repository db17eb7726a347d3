"""How the resampler is used: pauses, flushing, arguments, calls at the same time."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from test_resampler import INTERPOLATED_RATES, RATES, TELEPHONE_RATES, in_chunks, noise, steady

from pipecat_twilio.audio.resampler import SincResampler

FEW_RATES = [(8000, 16000), (24000, 8000), (12000, 8000), (44100, 8000), (8001, 8000)]


def whole_stream(rates: tuple[int, int], pcm: bytes) -> bytes:
    resampler = steady(*rates)
    return resampler.process(pcm) + resampler.flush()


class TestFlush:
    @pytest.mark.parametrize("rates", RATES)
    def test_flush_returns_what_more_silence_would_have_pushed_out(
        self, rates: tuple[int, int]
    ) -> None:
        pcm = noise(rates[0] // 50 + 3).tobytes()
        out = whole_stream(rates, pcm)
        delay_secs = steady(*rates).delay_secs
        secs = len(pcm) / 2 / rates[0] + delay_secs
        assert len(out) / 2 == pytest.approx(secs * rates[1], abs=1)
        silence = bytes(2 * (int(rates[0] * delay_secs) + 2))
        assert steady(*rates).process(pcm + silence).startswith(out)

    @pytest.mark.parametrize("rates", FEW_RATES)
    @pytest.mark.parametrize("end", [SincResampler.flush, SincResampler.reset])
    def test_flush_and_reset_make_it_as_new(self, rates: tuple[int, int], end: Callable) -> None:
        pcm = noise(1001).tobytes()
        resampler = steady(*rates)
        resampler.process(pcm)
        end(resampler)
        assert resampler.flush() == b""
        assert resampler.process(pcm) == steady(*rates).process(pcm)


class TestPauses:
    @pytest.mark.parametrize("rates", FEW_RATES)
    @pytest.mark.parametrize(
        ("pause_secs", "paused"),
        [(0.02, False), (0.199, False), (0.201, True), (60, True), (-3600, False)],
    )
    def test_after_one_the_rest_comes_first_and_then_a_new_stream(
        self, rates: tuple[int, int], pause_secs: float, paused: bool
    ) -> None:
        before, after = noise(481).tobytes(), noise(479, seed=2).tobytes()
        resampler = SincResampler(*rates)
        out = resampler.process(before, 1000.0) + resampler.process(after, 1000 + pause_secs)
        if paused:
            assert out == whole_stream(rates, before) + steady(*rates).process(after)
        else:
            assert out == steady(*rates).process(before + after)

    def test_a_long_chunk_after_one_is_no_different(self) -> None:
        pcm = noise(50_000).tobytes()
        resampler = SincResampler(24000, 8000)
        out = resampler.process(pcm, 1.0) + resampler.process(pcm, 2.0)
        assert out == whole_stream((24000, 8000), pcm) + steady(24000, 8000).process(pcm)

    def test_none_means_that_there_are_none(self) -> None:
        pcm = noise(320).tobytes()
        resampler = steady(8000, 16000)
        out = resampler.process(pcm[:320], 0.0) + resampler.process(pcm[320:], 1e9)
        assert out == steady(8000, 16000).process(pcm)

    def test_an_empty_chunk_neither_ends_one_nor_begins_a_stream(self) -> None:
        pcm = noise(320).tobytes()
        resampler = SincResampler(8000, 16000)
        assert resampler.process(b"", 1.0) == b""
        first = resampler.process(pcm[:320], 5.0)
        assert resampler.process(b"", 5.15) == resampler.process(b"", 5.3) == b""
        second = resampler.process(pcm[320:], 5.31)
        assert first + second == whole_stream((8000, 16000), pcm[:320]) + steady(
            8000, 16000
        ).process(pcm[320:])

    def test_after_a_flush_there_is_nothing_left_to_give(self) -> None:
        pcm = noise(160).tobytes()
        resampler = SincResampler(8000, 16000)
        resampler.process(pcm, 1.0)
        resampler.flush()
        assert resampler.process(pcm, 9.0) == steady(8000, 16000).process(pcm)

    def test_the_monotonic_clock_tells_them_and_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pcm = noise(160).tobytes()
        moment = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: moment)
        resampler = SincResampler(8000, 16000)
        out = resampler.process(pcm)
        moment += 0.1
        monkeypatch.setattr(time, "time", lambda: 4e9)
        out += resampler.process(pcm)
        assert out == steady(8000, 16000).process(pcm + pcm)
        moment += 0.201
        rest_and_new = whole_stream((8000, 16000), pcm + pcm) + steady(8000, 16000).process(pcm)
        assert out + resampler.process(pcm) == rest_and_new

    def test_the_clock_is_not_asked_where_there_is_no_need(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: pytest.fail("asked"))
        steady(8000, 16000).process(bytes(2))
        SincResampler(8000, 16000).process(bytes(2), 1)


def test_equal_rates_return_the_bytes_unchanged() -> None:
    resampler = SincResampler(8000, 8000)
    pcm = noise(160).tobytes()
    assert resampler.process(pcm, 1.0) == pcm
    assert resampler.process(bytearray(pcm), 9.0) == pcm
    assert resampler.flush() == b""
    resampler.reset()
    assert resampler.delay_secs == 0


@pytest.mark.parametrize("rates", [(8000, 16000), (8000, 8000)])
def test_any_c_contiguous_buffer_is_taken_and_never_aliased(rates: tuple[int, int]) -> None:
    pcm = noise(5000)
    expected = steady(*rates).process(pcm.tobytes())
    mutable = bytearray(pcm.tobytes())
    odd_address = memoryview(b"x" + mutable)[1:]
    for data in (mutable, memoryview(mutable), odd_address, pcm, pcm.reshape(2, -1)):
        assert steady(*rates).process(data) == expected
    out = steady(*rates).process(mutable)
    mutable[:] = bytes(len(mutable))
    assert out == expected


HUGE = 10**400
WRONG = [
    *({"in_rate": rate} for rate in (0, -8000, 768_001, 2**63, HUGE)),
    *({"out_rate": rate} for rate in (0, 249, 2**31, HUGE)),
    *({"clear_after_secs": secs} for secs in (-1, float("nan"), HUGE)),
    *({"num_zeros": zeros} for zeros in (0, -1, 193, HUGE)),
    *({"rolloff": share} for share in (0, -0.5, 1.01, float("nan"), HUGE, Fraction(HUGE))),
    *({"beta": shape} for shape in (-1, 701, float("inf"), float("nan"), HUGE)),
]
NO_NUMBERS = [
    *({name: rate} for name in ("in_rate", "out_rate") for rate in (8000.0, "8000", None, True)),
    {"clear_after_secs": "soon"},
    *({"num_zeros": zeros} for zeros in (1.5, "32", None, True)),
    *({name: value} for name in ("rolloff", "beta") for value in ("1", None, 1j)),
]


@pytest.mark.parametrize(
    ("error", "wrong"),
    [*((ValueError, wrong) for wrong in WRONG), *((TypeError, wrong) for wrong in NO_NUMBERS)],
)
def test_arguments_that_it_cannot_use_are_named(error: type[Exception], wrong: dict) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(error, match=name) as raised:
        SincResampler(**{"in_rate": 8000, "out_rate": 16000} | wrong)
    assert f"{value!r:.99}" in str(raised.value)


def test_the_extremes_of_its_arguments_make_a_filter() -> None:
    for rates in ((768_000, 767_999), (768_000, 24_000), (24_001, 768_000), (1, 32)):
        for zeros in (1, 192):
            for rolloff, beta in ((1, 0), (1e-9, 700), (Fraction(1, 2), True)):
                resampler = steady(*rates, num_zeros=zeros, rolloff=rolloff, beta=beta)
                pcm = np.full(int(2 * rates[0] * resampler.delay_secs) + 2, 30_000, "<i2")
                (last,) = np.frombuffer(resampler.process(pcm)[-2:], "<i2")
                assert abs(last - 30_000) <= 1


def test_integers_with_an_arithmetic_of_their_own_are_what_they_are_worth() -> None:
    # The filter's loops rely on sizes that were calculated from them.
    results = {"__mul__": 10**6, "__rmul__": 10**6, "__floordiv__": 7, "__le__": True}
    methods = {name: lambda *_, result=result: result for name, result in results.items()}
    odd = type("Odd", (int,), methods)
    pcm = noise(1000).tobytes()
    resampler = steady(odd(8000), odd(12000), num_zeros=odd(16))
    assert resampler.process(pcm) == steady(8000, 12000, num_zeros=16).process(pcm)
    for rates, zeros in (((1, 768_000), 32), ((-8000, 16000), 32), ((8000, 16000), -5)):
        with pytest.raises(ValueError, match=r"in_rate|num_zeros"):
            SincResampler(*map(odd, rates), num_zeros=odd(zeros))


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
    ],
)
def test_refused_input_leaves_the_stream_as_it_was(
    rates: tuple[int, int], pcm: object, now: object, error: type[Exception], text: str
) -> None:
    resampler = SincResampler(*rates)
    audio = noise(320).tobytes()
    first = resampler.process(audio[:320], 1)
    with pytest.raises(error, match=text):
        resampler.process(pcm, now)
    assert first + resampler.process(audio[320:], 1.1) == steady(*rates).process(audio)


def test_its_state_is_a_few_kib() -> None:
    for rates in TELEPHONE_RATES + INTERPOLATED_RATES[:5]:
        assert sys.getsizeof(SincResampler(*rates)) < 9 << 10


def test_separate_objects_are_independent_across_threads() -> None:
    pcm = noise(200_000).tobytes()
    expected = {rates: steady(*rates).process(pcm) for rates in TELEPHONE_RATES}

    def is_right(rates: tuple[int, int]) -> bool:
        return in_chunks(steady(*rates), pcm, [160] * 600 + [50_000]) == expected[rates]

    with ThreadPoolExecutor(len(TELEPHONE_RATES)) as pool:
        assert all(pool.map(is_right, TELEPHONE_RATES * 2))


INTRUSIONS = {
    "process": lambda resampler: resampler.process(bytes(320)),
    "process nothing": lambda resampler: resampler.process(b""),
    "flush": SincResampler.flush,
    "reset": SincResampler.reset,
}


@pytest.mark.parametrize("intrude", INTRUSIONS.values(), ids=INTRUSIONS)
@pytest.mark.parametrize("rates", [(44100, 8000), (8000, 8001), (24000, 8000)])
def test_a_call_from_another_thread_is_refused_and_changes_nothing(
    rates: tuple[int, int], intrude: Callable
) -> None:
    # Long enough for the other thread to get its turns.
    pcm, new = noise(100_000).tobytes() * 40, partial(steady, *rates, num_zeros=128)
    resampler = new()
    refused: list[str] = []
    done = threading.Event()

    def intrude_until_done() -> None:
        harmless = INTRUSIONS["process nothing"]  # until the long call has begun
        while not done.is_set():
            try:
                (intrude if refused else harmless)(resampler)
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=intrude_until_done)
    thread.start()
    out = resampler.process(pcm)
    done.set()
    thread.join()
    assert out == new().process(pcm)
    assert set(refused) == {f"SincResampler({rates[0]}, {rates[1]}) is in use by another call"}
    assert len(refused) > 1


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


def test_an_error_in_the_conversion_of_an_argument_changes_nothing() -> None:
    resampler = SincResampler(44100, 8000)
    pcm = noise(882).tobytes()
    now = type("Now", (), {"__float__": lambda _: 1 / 0})()
    out = resampler.process(pcm, 1)
    with pytest.raises(ZeroDivisionError):
        resampler.process(pcm, now)
    assert out + resampler.process(pcm, 1) == steady(44100, 8000).process(pcm * 2)
