"""What the benchmarks share: how they call, what they feed, and on which machine they ran."""

import ctypes
import mmap
import platform
import time
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import repeat
from typing import Any

import numpy as np
from cpuinfo import get_cpu_info

from pipecat_twilio.audio import resampler

PEERS = ("pipecat-ai", "numpy", "soxr", "samplerate", "av")


def machine() -> str:
    """Returns the processor, the versions and the day that a figure belongs to."""
    cpu = get_cpu_info()  # some hypervisors hide the number in the name
    name = f"{cpu.get('brand_raw')} family {cpu.get('family')} model {cpu.get('model')}"
    versions = ", ".join(f"{peer} {version(peer)}" for peer in PEERS)
    python = f"Python {platform.python_version()}, {versions}"
    return f"{name}, vector path {resampler.vector_path}, {python}, {datetime.now(UTC):%Y-%m-%d}"


@cache
def clock_hz() -> float:
    """Returns the processor's clock: the system tells its nominal one only. 0 if not x86-64.

    It times machine code: a loop of eight `imul rax, rax`, each of which takes three cycles and
    needs the one before.
    """
    if platform.machine() != "x86_64":
        return 0
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x48\x0f\xaf\xc0" * 8 + b"\x48\xff\xcf\x75\xdb\xc3")  # dec rdi; jnz; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    loop, rounds, times = ctypes.CFUNCTYPE(None, ctypes.c_int64)(address), 100_000, []
    for _ in range(200):  # 1 ms each: some are not interrupted
        start = time.perf_counter()
        loop(rounds)
        times.append(time.perf_counter() - start)
    return rounds * 8 * 3 / min(times)


def many(times: int, call: Callable[..., Any], *arguments: Any) -> None:
    """Calls `times` times; all of the loop is in C, since some calls take less than 0.1 us."""
    deque(map(call, *(repeat(argument, times) for argument in arguments)), maxlen=0)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns what a coroutine returns that never has to wait; an event loop would add to it."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value
    raise RuntimeError("the coroutine waits for something")


def pieces(audio: bytes, size: int) -> list[bytes]:
    """Cuts audio into pieces of so many bytes."""
    return [audio[i : i + size] for i in range(0, len(audio), size)]


def speech_like(secs: float, rate: int, seed: int = 1) -> bytes:
    """Returns 16-bit noise with the loudness of speech: syllables, four a second, and pauses."""
    t = np.arange(int(secs * rate)) / rate
    loudness = 6000 * np.clip(np.sin(2 * np.pi * 4 * t), 0, 1)
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return np.clip(noise * loudness, -32768, 32767).astype("<i2").tobytes()
