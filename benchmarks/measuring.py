"""What the benchmarks share: how they call, what they feed, and on which machine they ran."""

import platform
from collections import deque
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from itertools import repeat
from typing import Any

import numpy as np
from cpuinfo import get_cpu_info

from pipecat_twilio.audio import resampler


def machine() -> str:
    """Returns the processor and the versions that a figure belongs to."""
    cpu = get_cpu_info()  # some hypervisors hide the number in the name
    name = f"{cpu.get('brand_raw')} family {cpu.get('family')} model {cpu.get('model')}"
    versions = f"Python {platform.python_version()}, pipecat-ai {version('pipecat-ai')}"
    return f"{name}, vector path {resampler.vector_path}, {versions}"


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
