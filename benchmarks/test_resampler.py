"""The resampler against the peers a user might pick, each with what it does to the audio."""

import ctypes
import platform
import subprocess
import threading
import time
from math import gcd
from pathlib import Path

import numpy as np
import pytest
from measuring import many
from peers import CLAIMS, PEERS, Quality, measure, ours

from pipecat_twilio import filters

RATES = [
    (8000, 16000),
    (16000, 8000),
    (8000, 24000),
    (24000, 8000),
    (48000, 8000),
    (22050, 8000),
    (44100, 8000),
]
BLOCK_PEERS = ("ours", "pipecat (soxr VHQ)", "soxr HQ")


def rates_text(in_rate: int, out_rate: int) -> str:
    return f"{in_rate / 1000:g} to {out_rate / 1000:g} kHz"


def noise(samples: int) -> bytes:
    return np.random.default_rng(1).integers(-9000, 9000, samples).astype("<i2").tobytes()


def note_quality(benchmark, who: str, in_rate: int, out_rate: int) -> None:
    """Asserts what a resampler claims, and puts it into the table."""
    quality = measure(PEERS[who], in_rate, out_rate)
    claim: Quality = CLAIMS[who]
    assert quality.hold_back_ms <= claim.hold_back_ms
    assert quality.gain_db >= claim.gain_db
    assert quality.rejection_db >= claim.rejection_db
    benchmark.extra_info["hold-back ms"] = round(quality.hold_back_ms, 1)
    benchmark.extra_info["dB at 3400 Hz"] = round(quality.gain_db, 2)
    benchmark.extra_info["rejection dB"] = round(quality.rejection_db)


@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_20_ms(benchmark, who: str, in_rate: int, out_rate: int) -> None:
    benchmark.group, benchmark.param = f"resample 20 ms, {rates_text(in_rate, out_rate)}", who
    benchmark.extra_info["calls"] = 50
    benchmark(many, 50, PEERS[who](in_rate, out_rate), noise(in_rate // 50))
    note_quality(benchmark, who, in_rate, out_rate)


def multiply_adds(in_rate: int, out_rate: int) -> int:
    """Returns how many our filter takes for one second."""
    divisor = gcd(in_rate, out_rate)
    return out_rate * filters.bank_taps(out_rate // divisor, in_rate // divisor, 32)


@pytest.fixture(scope="module")
def peak(tmp_path_factory) -> float:
    """How many multiply-adds a second one core of this machine can do; 0 if that is not known."""
    if platform.machine() != "x86_64":
        return 0
    library = tmp_path_factory.mktemp("peak") / "peak.so"
    source = Path(__file__).parent / "peak.c"
    flags = ["-O3", "-mavx2", "-mfma", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, source, "-o", library], check=True)
    function = ctypes.CDLL(str(library)).multiply_adds
    function.argtypes, function.restype = [ctypes.c_long, ctypes.c_float], ctypes.c_float
    rounds, secs = 1_000_000, []
    for _ in range(20):
        start = time.perf_counter()
        function(rounds, 0.5)
        secs.append(time.perf_counter() - start)
    return rounds * 12 * 8 / min(secs)


@pytest.mark.parametrize("who", BLOCK_PEERS)
@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_1_s(benchmark, who: str, in_rate: int, out_rate: int, peak: float) -> None:
    benchmark.group, benchmark.param = f"resample 1 s, {rates_text(in_rate, out_rate)}", who
    benchmark(PEERS[who](in_rate, out_rate), noise(in_rate))
    note_quality(benchmark, who, in_rate, out_rate)
    if who == "ours" and not benchmark.disabled:
        rate = multiply_adds(in_rate, out_rate) / benchmark.stats.stats.median
        benchmark.extra_info["G multiply-adds/s"] = round(rate / 1e9, 1)
        if peak:
            benchmark.extra_info["share of the core's peak"] = f"{rate / peak:.0%}"


@pytest.mark.parametrize("who", ["ours", "two one after the other"])
def test_two_threads(benchmark, who: str) -> None:
    """Two long blocks at once, in two threads, against the same two in one."""
    benchmark.group, benchmark.param = "resample 2 x 60 s, 24 to 8 kHz, in two threads", who
    pcm = noise(24000 * 60)
    expected = ours(24000, 8000)(pcm)
    outputs: list[bytes] = []

    def convert() -> None:
        outputs.append(ours(24000, 8000)(pcm))

    def both() -> None:
        outputs.clear()
        if who != "ours":
            convert()
            convert()
            return
        threads = [threading.Thread(target=convert) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    benchmark(both)
    assert outputs == [expected] * 2
