"""Prints what one of 1,000 open calls occupies, in a process of its own, as JSON.

python benchmarks/memory.py ours|pipecat
"""

import json
import sys
import tracemalloc
from pathlib import Path

from loguru import logger
from measuring import run
from test_serializer import inbound, made, outbound

CALLS = 1000


def resident_kib() -> float:
    """Returns the memory that the process has in use, as the system sees it."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmRSS:")[1].split()[0])


def open_calls(who: str, count: int = CALLS) -> list[object]:
    """Returns serializers that have converted a second of audio each way."""
    messages, frames = inbound(1), outbound(24000, 1)
    calls = []
    for _ in range(count):
        serializer = made(who, 16000)
        for message in messages:
            run(serializer.deserialize(message))
        for frame in frames:
            run(serializer.serialize(frame))
        calls.append(serializer)
    return calls


def main(who: str) -> None:
    """Measures twice: traced, which slows the interpreter down, and as the system sees it."""
    logger.remove()
    open_calls(who, 1)  # what only the first call loads
    before = resident_kib()
    calls = open_calls(who)
    resident = (resident_kib() - before) / CALLS
    del calls
    tracemalloc.start()
    calls = open_calls(who)
    traced = tracemalloc.get_traced_memory()[0] / 1024 / len(calls)
    print(json.dumps({"traced KiB": round(traced, 1), "resident KiB": round(resident, 1)}))


if __name__ == "__main__":
    main(sys.argv[1])
