"""The resamplers a user might pick instead, each as bytes in, bytes out; and how good they are.

Every peer is what its own documentation offers for a stream of 16-bit audio, with the conversions
to and from its sample format that a telephone bot would have to make around it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import fast_audio_resampler
import numpy as np
import samplerate
import si_quick_resampler
import soxr
from measuring import run
from pipecat.audio.utils import create_stream_resampler
from scipy import signal

from pipecat_twilio import SincResampler

Convert = Callable[[bytes], bytes]

CHUNK_SECS = 0.02


def to_pcm(samples: np.ndarray) -> bytes:
    """Returns floats around +-1 as 16-bit samples."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def ours(in_rate: int, out_rate: int) -> Convert:
    """Returns this package's resampler."""
    return SincResampler(in_rate, out_rate, clear_after_secs=None).process


def pipecat(in_rate: int, out_rate: int) -> Convert:
    """Returns the stream resampler that Pipecat's serializer uses: soxr VHQ."""
    resampler = create_stream_resampler(clear_after_secs=None)
    return lambda pcm: run(resampler.resample(pcm, in_rate, out_rate))


def soxr_stream(quality: str) -> Callable[[int, int], Convert]:
    """Returns soxr's stream at a quality."""

    def make(in_rate: int, out_rate: int) -> Convert:
        stream = soxr.ResampleStream(in_rate, out_rate, 1, dtype="int16", quality=quality)
        return lambda pcm: stream.resample_chunk(np.frombuffer(pcm, "<i2")).tobytes()

    return make


def libsamplerate(converter: str) -> Callable[[int, int], Convert]:
    """Returns libsamplerate with one of its converters."""

    def make(in_rate: int, out_rate: int) -> Convert:
        resampler = samplerate.Resampler(converter, channels=1)
        ratio = out_rate / in_rate
        return lambda pcm: to_pcm(
            resampler.process(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, ratio)
        )

    return make


def fast_audio(in_rate: int, out_rate: int) -> Convert:
    """Returns fast-audio-resampler, whose samples are Python lists."""
    resampler = fast_audio_resampler.I16Resampler(in_rate, out_rate, 1, quality="balanced")
    return lambda pcm: np.array(
        resampler.process(np.frombuffer(pcm, "<i2").tolist())[0], "<i2"
    ).tobytes()


def si_quick(in_rate: int, out_rate: int) -> Convert:
    """Returns si-quick-resampler's stream."""
    stream = si_quick_resampler.QResampler(in_rate, out_rate).stream(channels=1, dtype="float32")
    return lambda pcm: to_pcm(stream.process(np.frombuffer(pcm, "<i2").astype(np.float32) / 32768))


def upfirdn(in_rate: int, out_rate: int) -> Convert:
    """Returns scipy's polyphase filter with this package's taps and the history kept around it."""
    up, down = out_rate // np.gcd(in_rate, out_rate), in_rate // np.gcd(in_rate, out_rate)
    half = 32 * max(up, down)
    taps = signal.firwin(2 * half + 1, 0.9125 / max(up, down), window=("kaiser", 8.5)) * up
    history = np.zeros(-(-2 * half // up // down) * down)  # whole turns, to stay in phase

    def convert(pcm: bytes) -> bytes:
        nonlocal history
        window = np.concatenate([history, np.frombuffer(pcm, "<i2").astype(float)])
        start = len(history) * up // down
        count = len(pcm) // 2 * up // down
        history = window[len(window) - len(history) :]
        return to_pcm(signal.upfirdn(taps, window, up, down)[start : start + count] / 32768)

    return convert


PEERS: dict[str, Callable[[int, int], Convert]] = {
    "ours": ours,
    "pipecat (soxr VHQ)": pipecat,
    "soxr HQ": soxr_stream("HQ"),
    "soxr QQ": soxr_stream("QQ"),
    "libsamplerate medium": libsamplerate("sinc_medium"),
    "libsamplerate fastest": libsamplerate("sinc_fastest"),
    "fast-audio-resampler": fast_audio,
    "si-quick-resampler": si_quick,
    "scipy upfirdn": upfirdn,
}


@dataclass(frozen=True)
class Quality:
    """What a resampler does to a telephone call.

    Parameters:
        hold_back_ms: How much later than at once a sound is out, at worst, in 20 ms chunks.
        gain_db: Gain at 3400 Hz, the end of the telephone band.
        rejection_db: How far aliases or images from 4600 Hz on are down, at worst.
    """

    hold_back_ms: float
    gain_db: float
    rejection_db: float


# What each is held to, at all the rates measured: ours to what it promises, the others to about
# what they were seen to do, so that a comparison does not go on with a peer that has changed.
CLAIMS = {
    "ours": Quality(4.01, -0.1, 84),
    "pipecat (soxr VHQ)": Quality(175, -0.05, 84),
    "soxr HQ": Quality(165, -0.05, 84),
    "soxr QQ": Quality(1, -3.1, -1),
    "libsamplerate medium": Quality(7, -0.1, 84),
    "libsamplerate fastest": Quality(4, -9, 84),
    "fast-audio-resampler": Quality(4, -4, 14),
    "si-quick-resampler": Quality(2, -5, 25),
    "scipy upfirdn": Quality(4.01, -0.1, 84),
}


def measure(make: Callable[[int, int], Convert], in_rate: int, out_rate: int) -> Quality:
    """Measures a resampler by what goes in and what comes out, in 20 ms chunks."""
    band = (300, 1000, 2500, 3400)
    if out_rate < in_rate:  # what should not alias
        stop = [f for f in (4600, 4800, 5300, 6700, 7600, 9100, 11500) if f < in_rate / 2]
        leaks = [level_db(make, in_rate, out_rate, f, None) for f in stop]
    else:  # what should not have images
        leaks = [level_db(make, in_rate, out_rate, f, f) for f in band]
    return Quality(
        hold_back_ms(make, in_rate, out_rate),
        level_db(make, in_rate, out_rate, 3400, None),
        -max(leaks),
    )


def in_chunks(convert: Convert, pcm: np.ndarray, in_rate: int) -> list[bytes]:
    """Feeds audio in 20 ms chunks; returns what each gave."""
    size = round(in_rate * CHUNK_SECS)
    return [convert(pcm[i : i + size].tobytes()) for i in range(0, len(pcm), size)]


def level_db(
    make: Callable[[int, int], Convert],
    in_rate: int,
    out_rate: int,
    frequency: float,
    without: float | None,
) -> float:
    """Returns the level that comes out for a sine, less what is at the frequency `without`."""
    t = np.arange(in_rate) / in_rate
    sine = np.rint(30000 * np.sin(2 * np.pi * frequency * t)).astype("<i2")
    out = np.frombuffer(b"".join(in_chunks(make(in_rate, out_rate), sine, in_rate)), "<i2")
    out = out[out_rate // 4 : out_rate // 4 + out_rate // 2].astype(float)  # past the start
    if without is not None:
        m = np.arange(len(out)) * 2 * np.pi * without / out_rate
        basis = np.stack([np.sin(m), np.cos(m)], axis=1)
        out = out - basis @ np.linalg.lstsq(basis, out, rcond=None)[0]
    return float(20 * np.log10(max(np.sqrt(2 * np.mean(out**2)), 1e-3) / 30000))


def hold_back_ms(make: Callable[[int, int], Convert], in_rate: int, out_rate: int) -> float:
    """Returns how long, beyond its own chunk, a sample waits at worst until it is out."""
    click = np.zeros(2 * in_rate, "<i2")
    click[in_rate] = 30000
    pieces = in_chunks(make(in_rate, out_rate), click, in_rate)
    peak = np.argmax(np.frombuffer(b"".join(pieces), "<i2"))
    shift = peak / out_rate - 1.0  # of the content in the stream of samples
    given = np.cumsum([0, *(len(piece) // 2 for piece in pieces)]) / out_rate
    taken = np.arange(1, len(pieces) + 1) * CHUNK_SECS
    # The oldest sample of each piece was at the start of what is given then.
    waits = [
        now - (start - shift)
        for now, start, end in zip(taken, given[:-1], given[1:], strict=True)
        if end > start and now > 0.5
    ]
    return 1000 * (max(waits) - CHUNK_SECS)
