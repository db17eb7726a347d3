"""Pipecat's stream resampler interface: its shape, its delay, its response, its chunks."""

import inspect
from collections.abc import Coroutine
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pipecat.audio.resamplers.soxr_stream_resampler import SOXRStreamAudioResampler
from streams import speech as noise

from pipecat_twilio import SincStreamResampler

USUAL_RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000]


def done(coroutine: Coroutine[Any, Any, bytes]) -> bytes:
    """Runs a coroutine that never waits."""
    with pytest.raises(StopIteration) as result:
        coroutine.send(None)
    return result.value.value


def resampled(audio: bytes, in_rate: int, out_rate: int) -> bytes:
    """Returns what a new object makes of audio."""
    return done(SincStreamResampler(clear_after_secs=None).resample(audio, in_rate, out_rate))


def pcm(samples: Any) -> bytes:
    return np.rint(samples).astype("<i2").tobytes()


def samples_of(audio: bytes) -> np.ndarray:
    return np.frombuffer(audio, "<i2").astype(float)


def test_it_is_a_pipecat_resampler_with_the_same_arguments_and_a_clock() -> None:
    resampler = SincStreamResampler(quality="QQ", clear_after_secs=None, of_the_future=1)
    assert isinstance(resampler, BaseAudioResampler)
    theirs = inspect.signature(SOXRStreamAudioResampler).parameters
    ours = dict(inspect.signature(SincStreamResampler).parameters)
    assert ours.pop("clock").kind is inspect.Parameter.KEYWORD_ONLY
    for name in theirs.keys() | ours.keys():
        assert (ours[name].kind, ours[name].default) == (theirs[name].kind, theirs[name].default)


@pytest.mark.parametrize(
    ("in_rate", "out_rate", "delay_secs"),
    [
        *((*rates, 0.004) for rates in permutations(USUAL_RATES, 2) if rates != (96000, 48000)),
        # Below 2 kHz it is 8 periods, and above 48 kHz 192.
        *((1000, 8000, 0.008), (8000, 500, 0.016), (7900, 48000, 0.004)),
        *((96000, 192000, 0.002), (192000, 96000, 0.002)),
    ],
)
def test_delay_is_4_ms_at_all_usual_rates(in_rate: int, out_rate: int, delay_secs: float) -> None:
    click = np.zeros(in_rate // 10)
    at = in_rate // 20
    click[at] = 20000
    out = samples_of(resampled(pcm(click), in_rate, out_rate))
    assert len(out) == -(-len(click) * out_rate // in_rate)
    late_secs = np.argmax(np.abs(out)) / out_rate - at / in_rate
    # 4 ms are a whole number of periods at most rates; else it is the nearest one.
    assert abs(late_secs - delay_secs) <= 0.5 / min(in_rate, out_rate) + 0.5 / out_rate


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 641])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_chunks_that_cut_a_sample_in_two_give_the_same_as_one(chunk_bytes: int, kind: type) -> None:
    audio = noise(2400)
    resampler = SincStreamResampler(clear_after_secs=None)
    pieces = [kind(audio[i : i + chunk_bytes]) for i in range(0, len(audio), chunk_bytes)]
    out = b"".join(done(resampler.resample(p, 24000, 16000)) for p in pieces)
    assert out == resampled(audio, 24000, 16000)


def test_equal_rates_return_the_audio_as_it_is() -> None:
    audio = noise(300) + b"!"
    assert resampled(audio, 16000, 16000) is audio


@pytest.mark.parametrize(
    ("rates", "end", "clear_after_secs", "pause_secs", "is_new"),
    [
        *(((24000, 16000), end, 0.25, 0.0, True) for end in ("flush", "reset")),
        *(((24000, 16000), None, 0.25, secs, secs > 0.25) for secs in (0.25, 0.26, -9, 60)),
        ((24000, 16000), None, None, 1e6, False),
        *((rates, None, None, 0, True) for rates in [(8000, 16000), (24000, 8000), (9000, 9000)]),
    ],
)
def test_a_pause_a_change_of_rates_flush_and_reset_start_a_new_stream_without_the_old_tail(
    rates: tuple, end: str | None, clear_after_secs: float | None, pause_secs: float, is_new: bool
) -> None:
    now = 1000.0
    resampler = SincStreamResampler(clear_after_secs=clear_after_secs, clock=lambda: now)
    before, after = noise(480) + b"!", noise(480, 2) + b"?"
    old = done(resampler.resample(before, 24000, 16000))
    if end == "flush":
        assert done(resampler.flush()) == resampled(before[:-1] + bytes(600), 24000, 16000)[640:768]
        assert done(resampler.flush()) == b""
    elif end:
        done(getattr(resampler, end)())
    now += pause_secs
    out = done(resampler.resample(after, *rates))
    assert out == (
        resampled(after, *rates) if is_new else resampled(before + after, *rates)[len(old) :]
    )


@pytest.mark.parametrize(
    "rate", [0, -8000, 8000.5, float("nan"), float("inf"), "8000", None, 44101, 7999]
)
@pytest.mark.parametrize("side", ["in_rate", "out_rate"])
def test_a_rate_that_cannot_be_used_is_refused_by_name_and_changes_nothing(
    side: str, rate: Any
) -> None:
    resampler = SincStreamResampler(clear_after_secs=None)
    out = done(resampler.resample(noise(480)[:301], 24000, 16000))
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{side}.*{rate}"):
            resampler.resample(b"odd", **{"in_rate": 24000, "out_rate": 16000, side: rate}).send(
                None
            )
    out += done(resampler.resample(noise(480)[301:], 24000, 16000))
    assert out == resampled(noise(480), 24000, 16000)
