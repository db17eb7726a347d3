"""Pipecat's stream resampler interface: its shape, its delay, its response, its chunks."""

import inspect
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pipecat.audio.resamplers.soxr_stream_resampler import SOXRStreamAudioResampler
from streams import speech as noise

from pipecat_twilio import SincStreamResampler

RATES = [(24000, 16000), (16000, 24000), (8000, 24000), (24000, 8000), (22050, 16000)]
ODD_RATES = [(44100, 48000), (48000, 44100), (11025, 16000), (16000, 12000), (7900, 48000)]
# The lower rate is the response's only measure: the other only decides what images may come of it.
RESPONSE_RATES = [(24000, 16000), (16000, 24000), (8000, 16000), (48000, 24000), (22050, 44100)]


def done(coroutine: Coroutine[Any, Any, bytes]) -> bytes:
    """Runs a coroutine that never waits."""
    with pytest.raises(StopIteration) as result:
        coroutine.send(None)
    return result.value.value


def pcm(samples: Any) -> bytes:
    return np.rint(samples).astype("<i2").tobytes()


def samples_of(audio: bytes) -> np.ndarray:
    return np.frombuffer(audio, "<i2").astype(float)


def tone(hertz: float, rate: int, secs: float = 1.0, amplitude: float = 20000) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(secs * rate)) / rate)


def level_at(hertz: float, rate: int, audio: np.ndarray, beside: float | None = None) -> float:
    """Returns the amplitude of a tone in audio, by least squares, which is exact at any frequency.

    If there is a much louder tone, its frequency must be passed as `beside`: it would leak into
    the result.
    """
    angles = [2 * np.pi * h * np.arange(len(audio)) / rate for h in (hertz, beside or 0)]
    basis = [f(angle) for angle in angles[: 2 if beside else 1] for f in (np.sin, np.cos)]
    fit = np.linalg.lstsq(np.stack(basis, axis=1), audio, rcond=None)[0]
    return float(np.hypot(*fit[:2]))


def middle(audio: bytes, rate: int) -> np.ndarray:
    """Returns the samples without 50 ms at each end, where the filter sees the signal's ends."""
    edge = rate // 20
    return samples_of(audio)[edge:-edge]


class TestInterface:
    def test_it_is_a_pipecat_resampler_with_the_same_arguments(self) -> None:
        resampler = SincStreamResampler(quality="QQ", clear_after_secs=None, of_the_future=1)
        assert isinstance(resampler, BaseAudioResampler)
        theirs = inspect.signature(SOXRStreamAudioResampler).parameters.values()
        ours = inspect.signature(SincStreamResampler).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours] == [
            (p.name, p.kind, p.default) for p in theirs
        ]

    def test_a_negative_pause_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"clear_after_secs .* -1"):
            SincStreamResampler(clear_after_secs=-1)

    def test_flush_and_reset_of_a_new_one_do_nothing(self) -> None:
        resampler = SincStreamResampler()
        assert done(resampler.flush()) == b""
        with pytest.raises(StopIteration):
            resampler.reset().send(None)


class TestDelay:
    @pytest.mark.parametrize(
        ("in_rate", "out_rate", "delay_secs"),
        [
            *((*rates, 0.004) for rates in RATES + ODD_RATES),
            # Below 2 kHz it is 8 periods, and above 48 kHz 192.
            *((1000, 8000, 0.008), (8000, 500, 0.016)),
            *((96000, 192000, 0.002), (192000, 96000, 0.002)),
        ],
    )
    def test_the_delay_is_4_ms(self, in_rate: int, out_rate: int, delay_secs: float) -> None:
        click = np.zeros(in_rate // 10)
        at = in_rate // 20
        click[at] = 20000
        out = samples_of(done(SincStreamResampler().resample(pcm(click), in_rate, out_rate)))
        assert len(out) == -(-len(click) * out_rate // in_rate)
        late_secs = np.argmax(np.abs(out)) / out_rate - at / in_rate
        # 4 ms are a whole number of periods at most rates; else it is the nearest one.
        nearest = 0.5 / min(in_rate, out_rate)
        assert abs(late_secs - delay_secs) <= nearest + 0.5 / out_rate

    @pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
    def test_nothing_is_missing_after_flush(self, in_rate: int, out_rate: int) -> None:
        resampler = SincStreamResampler()
        speech = tone(500, in_rate, 0.5)
        out = done(resampler.resample(pcm(speech), in_rate, out_rate)) + done(resampler.flush())
        heard = samples_of(out)[round(0.004 * out_rate) :]
        expected = tone(500, out_rate, 0.5)
        assert abs(len(heard) - len(expected)) <= 1
        inner = slice(out_rate // 50, -out_rate // 50)
        assert np.abs(heard[: len(expected)] - expected)[inner].max() < 20000 * 0.012  # 0.1 dB
        assert done(resampler.flush()) == b""


class TestResponse:
    """The frequency response that the docstring promises, measured with tones."""

    @pytest.mark.parametrize(("in_rate", "out_rate"), RESPONSE_RATES)
    def test_it_is_flat_within_a_tenth_of_a_decibel_up_to_600_hz_below_half_the_lower_rate(
        self, in_rate: int, out_rate: int
    ) -> None:
        edge = min(in_rate, out_rate) / 2 - 600
        for hertz in np.linspace(100, edge, 25):
            out = done(SincStreamResampler().resample(pcm(tone(hertz, in_rate)), in_rate, out_rate))
            gain = level_at(hertz, out_rate, middle(out, out_rate)) / 20000
            assert abs(20 * np.log10(gain)) < 0.1, hertz

    @pytest.mark.parametrize(("in_rate", "out_rate"), RESPONSE_RATES)
    def test_aliases_and_images_are_84_db_down(self, in_rate: int, out_rate: int) -> None:
        lower_nyquist = min(in_rate, out_rate) / 2
        if in_rate > out_rate:  # what lies above it must vanish
            tones = np.linspace(lower_nyquist + 1, in_rate / 2 - 1, 25)
            aliases = {hertz: abs(hertz - round(hertz / out_rate) * out_rate) for hertz in tones}
        else:  # what lies below it must not appear once more, mirrored
            tones = np.linspace(100, lower_nyquist - 600, 25)
            aliases = {hertz: in_rate - hertz for hertz in tones if in_rate - hertz < out_rate / 2}
        for hertz, alias in aliases.items():
            said = tone(hertz, in_rate, 2, 32000)
            out = done(SincStreamResampler().resample(pcm(said), in_rate, out_rate))
            loud = hertz if in_rate < out_rate else None
            down = level_at(alias, out_rate, middle(out, out_rate), loud) / 32000
            assert 20 * np.log10(max(down, 1e-6)) < -84, (hertz, alias)


class TestChunks:
    @pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 640, 641])
    def test_any_chunks_odd_ones_too_give_the_same_as_one(self, chunk_bytes: int) -> None:
        audio = noise(2400)
        whole = done(SincStreamResampler(clear_after_secs=None).resample(audio, 24000, 16000))
        resampler = SincStreamResampler(clear_after_secs=None)
        pieces = [audio[i : i + chunk_bytes] for i in range(0, len(audio), chunk_bytes)]
        assert b"".join(done(resampler.resample(p, 24000, 16000)) for p in pieces) == whole

    @pytest.mark.parametrize("end", ["flush", "reset"])
    def test_half_a_sample_is_forgotten_when_its_stream_ends(self, end: str) -> None:
        resampler = SincStreamResampler()
        done(resampler.resample(noise(100) + b"\x7f", 24000, 16000))
        done(getattr(resampler, end)())
        fresh = done(SincStreamResampler().resample(noise(100, 2), 24000, 16000))
        assert done(resampler.resample(noise(100, 2), 24000, 16000)) == fresh

    def test_half_a_sample_is_forgotten_after_a_pause(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 50.0
        monkeypatch.setattr("pipecat_twilio.stream_resampler.monotonic", lambda: now)
        resampler, whole = SincStreamResampler(), SincStreamResampler()
        done(resampler.resample(noise(100) + b"\x7f", 24000, 16000))
        done(whole.resample(noise(100), 24000, 16000))
        now += 0.21
        expected = done(whole.resample(noise(100, 2), 24000, 16000))
        assert done(resampler.resample(noise(100, 2), 24000, 16000)) == expected

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_equal_rates_return_the_bytes_as_they_are(self, kind: type) -> None:
        audio = kind(b"12345")  # even half a sample
        assert done(SincStreamResampler().resample(audio, 16000, 16000)) is audio

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_any_bytes_like_object_is_audio(self, kind: type) -> None:
        audio = noise(300) + b"!"
        expected = done(SincStreamResampler().resample(audio, 24000, 16000))
        assert done(SincStreamResampler().resample(kind(audio), 24000, 16000)) == expected


class TestRates:
    def test_a_change_of_in_rate_returns_the_tail_of_the_old_rate_first(self) -> None:
        resampler, old, new = (SincStreamResampler() for _ in range(3))
        done(resampler.resample(noise(480), 24000, 16000))
        done(old.resample(noise(480), 24000, 16000))
        tail = done(old.flush())
        assert len(tail) == 2 * 64  # 4 ms
        after = done(new.resample(noise(160, 2), 8000, 16000))
        assert done(resampler.resample(noise(160, 2), 8000, 16000)) == tail + after

    def test_a_change_to_equal_rates_returns_the_tail_first(self) -> None:
        resampler, old = SincStreamResampler(), SincStreamResampler()
        done(resampler.resample(noise(480), 24000, 16000))
        done(old.resample(noise(480), 24000, 16000))
        tail = done(old.flush())
        assert done(resampler.resample(noise(160), 16000, 16000)) == tail + noise(160)
        assert done(resampler.resample(noise(160), 16000, 16000)) == noise(160)

    def test_a_change_of_out_rate_starts_afresh(self) -> None:
        resampler = SincStreamResampler()
        done(resampler.resample(noise(480) + b"!", 24000, 16000))
        fresh = done(SincStreamResampler().resample(noise(160, 2), 24000, 8000))
        assert done(resampler.resample(noise(160, 2), 24000, 8000)) == fresh

    @pytest.mark.parametrize("number", [float, np.int64, np.float64])
    def test_any_whole_number_is_a_rate_and_its_type_makes_no_difference(
        self, number: type
    ) -> None:
        whole = done(SincStreamResampler().resample(noise(480), 24000, 16000))
        resampler = SincStreamResampler()
        out = done(resampler.resample(noise(480)[:300], number(24000), number(16000)))
        assert out + done(resampler.resample(noise(480)[300:], 24000, 16000)) == whole

    @pytest.mark.parametrize("rate", [0, -8000, 8000.5, float("nan"), float("inf"), "8000", None])
    @pytest.mark.parametrize("side", ["in_rate", "out_rate"])
    def test_anything_else_is_refused_by_name_and_changes_nothing(
        self, side: str, rate: Any
    ) -> None:
        resampler, other = SincStreamResampler(), SincStreamResampler()
        for r in (resampler, other):
            done(r.resample(noise(480), 24000, 16000))
        rates = {"in_rate": 24000, "out_rate": 16000} | {side: rate}
        with pytest.raises(ValueError, match=f"{side}.*{rate}"):
            resampler.resample(noise(480), **rates).send(None)
        assert done(resampler.flush()) == done(other.flush())


class TestPause:
    @pytest.fixture
    def tail_and_next(self) -> tuple[bytes, bytes]:
        """The tail of a stream, and the output of a new stream for other audio."""
        old, new = SincStreamResampler(), SincStreamResampler()
        done(old.resample(noise(480), 24000, 16000))
        return done(old.flush()), done(new.resample(noise(480, 2), 24000, 16000))

    def test_after_a_pause_the_tail_comes_first(self, tail_and_next) -> None:
        resampler = SincStreamResampler(clear_after_secs=0.01)
        done(resampler.resample(noise(480), 24000, 16000))
        time.sleep(0.02)
        assert done(resampler.resample(noise(480, 2), 24000, 16000)) == b"".join(tail_and_next)

    @pytest.mark.parametrize("clear_after_secs", [None, 30])
    def test_a_shorter_pause_is_part_of_a_stream(self, clear_after_secs: float | None) -> None:
        whole = done(SincStreamResampler().resample(noise(960), 24000, 16000))
        resampler = SincStreamResampler(clear_after_secs=clear_after_secs)
        out = done(resampler.resample(noise(960)[:960], 24000, 16000))
        time.sleep(0.25)
        assert out + done(resampler.resample(noise(960)[960:], 24000, 16000)) == whole

    def test_reset_forgets(self, tail_and_next) -> None:
        resampler = SincStreamResampler()
        done(resampler.resample(noise(480), 24000, 16000))
        with pytest.raises(StopIteration):
            resampler.reset().send(None)
        assert done(resampler.resample(noise(480, 2), 24000, 16000)) == tail_and_next[1]
