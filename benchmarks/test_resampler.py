"""The resampler against the peers a user might pick, each with what it does to the audio.

Every peer is what its own documentation offers for a stream of 16-bit audio, with the conversions
to and from its sample format that a telephone bot would have to make around it. libspeexdsp is a C
library; 2 us of each call are ctypes.
"""

import ctypes
import weakref
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
import pytest
import samplerate
import soxr
from measuring import clock_hz, many, pieces, run
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pipecat.audio.resamplers.soxr_stream_resampler import SOXRStreamAudioResampler

from pipecat_twilio import SincResampler, SincStreamResampler

Convert = Callable[[bytes], bytes]
Make = Callable[[int, int], Convert]

CHUNK_SECS = 0.02
RATES = [(8000, 16000), (8000, 24000), *((r, 8000) for r in (16000, 22050, 24000, 44100, 48000))]


def ours(in_rate: int, out_rate: int) -> Convert:
    """Returns this package's resampler."""
    return SincResampler(in_rate, out_rate, clear_after_secs=None).process


def stream_of(resampler_class: type[BaseAudioResampler]) -> Make:
    """Returns a resampler with Pipecat's interface."""

    def make(in_rate: int, out_rate: int) -> Convert:
        resampler = resampler_class(clear_after_secs=None)
        return lambda pcm: run(resampler.resample(pcm, in_rate, out_rate))

    return make


def soxr_hq(in_rate: int, out_rate: int) -> Convert:
    """Returns soxr's own stream at its default quality."""
    stream = soxr.ResampleStream(in_rate, out_rate, 1, dtype="int16")
    return lambda pcm: stream.resample_chunk(np.frombuffer(pcm, "<i2")).tobytes()


def libsamplerate(in_rate: int, out_rate: int) -> Convert:
    """Returns libsamplerate's medium sinc."""
    resampler = samplerate.Resampler("sinc_medium", channels=1)

    def convert(pcm: bytes) -> bytes:
        floats = np.frombuffer(pcm, "<i2").astype(np.float32)
        out = resampler.process(floats, out_rate / in_rate)
        return np.clip(np.rint(out), -32768, 32767).astype("<i2").tobytes()

    return convert


def swresample(in_rate: int, out_rate: int) -> Convert:
    """Returns FFmpeg's resampler, by PyAV."""
    resampler = av.AudioResampler("s16", "mono", out_rate)

    def convert(pcm: bytes) -> bytes:
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None], "s16", "mono")
        frame.sample_rate = in_rate
        out = resampler.resample(frame)
        return b"".join(bytes(each.planes[0])[: 2 * each.samples] for each in out)

    return convert


def speexdsp(quality: int) -> Make:
    """Returns libspeexdsp's resampler at a quality from 0 to 10."""

    def make(in_rate: int, out_rate: int) -> Convert:
        try:
            library = ctypes.CDLL("libspeexdsp.so.1")
        except OSError as error:
            pytest.skip(f"libspeexdsp is not compared: {error}")
        library.speex_resampler_init.restype = ctypes.c_void_p
        state = library.speex_resampler_init(1, in_rate, out_rate, quality, None)
        out = ctypes.create_string_buffer(2 * out_rate)
        taken, given, process = (
            ctypes.c_uint(),
            ctypes.c_uint(),
            library.speex_resampler_process_int,
        )
        arguments = (ctypes.byref(taken), out, ctypes.byref(given))
        process.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_char_p, *[ctypes.c_void_p] * 3]

        def convert(pcm: bytes) -> bytes:
            taken.value, given.value = len(pcm) // 2, out_rate
            process(state, 0, pcm, *arguments)
            return ctypes.string_at(out, 2 * given.value)

        weakref.finalize(convert, library.speex_resampler_destroy, ctypes.c_void_p(state))
        return convert

    return make


def limit_us(in_rate: int, out_rate: int) -> float | str:
    """Returns the time of our filter's multiplications in 20 ms, if there were nothing else.

    That is 64 taps at the lower rate for each output, at two multiply-adds of 8 floats a cycle.
    """
    taps = 64 * max(1, in_rate / out_rate)
    return round(1e6 * taps * out_rate * CHUNK_SECS / (2 * 8 * clock_hz()), 2) if clock_hz() else ""


class Quality(NamedTuple):
    """What a resampler does to a telephone call.

    Parameters:
        delay_ms: How much later than at once a sound is out, at worst, in 20 ms chunks.
        gain_db: Gain at 3400 Hz, the end of the telephone band.
        rejection_db: How far aliases or images from 4000 Hz on are down, at worst.
    """

    delay_ms: float
    gain_db: float
    rejection_db: float


# With what each is held to, at all the rates measured: ours to what it promises, the others to
# about what they were seen to do, so that a comparison notices a peer that has changed.
PEERS: dict[str, tuple[Make, Quality]] = {
    "ours": (ours, Quality(4.01, -0.1, 84)),
    "ours (stream)": (stream_of(SincStreamResampler), Quality(4.01, -0.1, 84)),
    "pipecat (soxr VHQ)": (stream_of(SOXRStreamAudioResampler), Quality(175, -0.05, 84)),
    "soxr HQ": (soxr_hq, Quality(165, -0.05, 84)),
    "libsamplerate medium": (libsamplerate, Quality(7, -0.1, 84)),
    "FFmpeg (PyAV)": (swresample, Quality(2.01, -0.15, 6)),
    "speexdsp 3": (speexdsp(3), Quality(3.2, -1.1, 44)),
    "speexdsp 5": (speexdsp(5), Quality(5.2, -0.05, 49)),
    "speexdsp 10": (speexdsp(10), Quality(16.2, -0.05, 81)),
}


def measure(make: Make, in_rate: int, out_rate: int) -> Quality:
    """Measures a resampler by what goes in and what comes out, in 20 ms chunks."""
    if out_rate < in_rate:  # what should not alias
        stop = [f for f in (*range(4010, 4600, 50), *range(4600, 24000, 450)) if f < in_rate / 2]
        leaks = [level_db(make, in_rate, out_rate, f) for f in stop]
    else:  # what should not have images; that of 3990 Hz is at 4010 Hz
        heard = (300, 1000, 2500, *range(3390, 4000, 50))
        leaks = [level_db(make, in_rate, out_rate, f, others=True) for f in heard]
    gain = level_db(make, in_rate, out_rate, 3400)
    return Quality(delay_ms(make, in_rate, out_rate), gain, -max(leaks))


def in_chunks(convert: Convert, pcm: np.ndarray, in_rate: int) -> list[bytes]:
    """Feeds audio in 20 ms chunks; returns what each gave."""
    return [convert(chunk) for chunk in pieces(pcm.tobytes(), 2 * round(in_rate * CHUNK_SECS))]


def level_db(make: Make, in_rate: int, out_rate: int, hz: int, others: bool = False) -> float:
    """Returns the level that comes out for a sine: of everything, or of all but it."""
    sine = np.rint(30000 * np.sin(2 * np.pi * hz / in_rate * np.arange(in_rate))).astype("<i2")
    out = np.frombuffer(b"".join(in_chunks(make(in_rate, out_rate), sine, in_rate)), "<i2")
    out = out[out_rate // 4 : out_rate // 4 + out_rate // 2].astype(float)  # past the start
    amplitudes = 2 * np.abs(np.fft.rfft(out)) / len(out)  # of each multiple of 2 Hz
    if others:
        amplitudes[hz // 2] = 0
    return float(20 * np.log10(max(np.sqrt(np.sum(amplitudes**2)), 1e-3) / 30000))


def delay_ms(make: Make, in_rate: int, out_rate: int) -> float:
    """Returns how long, beyond its own chunk, a sample waits at worst until it is out."""
    click = np.zeros(2 * in_rate, "<i2")
    click[in_rate] = 30000
    out = in_chunks(make(in_rate, out_rate), click, in_rate)
    peak = np.argmax(np.frombuffer(b"".join(out), "<i2"))
    shift = peak / out_rate - 1.0  # of the content in the stream of samples
    given = np.cumsum([0, *(len(piece) // 2 for piece in out)]) / out_rate
    taken = np.arange(1, len(out) + 1) * CHUNK_SECS
    # The oldest sample of each piece was at the start of what is given then.
    waits = (taken - (given[:-1] - shift))[(np.diff(given) > 0) & (taken > 0.5)]
    return 1000 * float(waits.max() - CHUNK_SECS)


@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_20_ms(benchmark, who: str, in_rate: int, out_rate: int) -> None:
    rates = f"{in_rate / 1000:g} to {out_rate / 1000:g} kHz"
    benchmark.group, benchmark.param = f"resample 20 ms, {rates}", who
    benchmark.extra_info["calls"] = 50
    noise = np.random.default_rng(1).integers(-9000, 9000, in_rate // 50).astype("<i2").tobytes()
    make, claim = PEERS[who]
    benchmark(many, 50, make(in_rate, out_rate), noise)
    quality = measure(make, in_rate, out_rate)
    assert quality.delay_ms <= claim.delay_ms
    assert quality.gain_db >= claim.gain_db
    assert quality.rejection_db >= claim.rejection_db
    benchmark.extra_info["delay ms"] = round(quality.delay_ms, 1)
    benchmark.extra_info["dB at 3400 Hz"] = round(quality.gain_db, 2)
    benchmark.extra_info["rejection dB"] = round(quality.rejection_db)
    benchmark.extra_info["limit, us"] = (
        limit_us(in_rate, out_rate) if who.startswith("ours") else ""
    )
