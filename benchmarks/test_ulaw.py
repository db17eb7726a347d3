"""mu-law against audioop, at a message, a second and two minutes of audio."""

import audioop
from typing import Any

import numpy as np
import pytest
from measuring import many

from pipecat_twilio import ulaw

# Each a function, and what it takes beside the audio.
CODECS: dict[str, dict[str, tuple[Any, ...]]] = {
    "decode": {"ours": (ulaw.decode,), "audioop": (audioop.ulaw2lin, 2)},
    "encode": {"ours": (ulaw.encode,), "audioop": (audioop.lin2ulaw, 2)},
}
SIZES = {"160 B": 160, "8 kB": 8000, "1 MiB": 1 << 20}


@pytest.mark.parametrize("who", CODECS["decode"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", CODECS)
def test_ulaw(benchmark, way: str, size: str, who: str) -> None:
    benchmark.group, benchmark.param = f"ulaw.{way}, {size}", who
    calls = benchmark.extra_info["calls"] = max(1, 100_000 // SIZES[size])
    convert, *rest = CODECS[way][who]
    audio = np.random.default_rng(1).bytes(SIZES[size] * (2 if way == "encode" else 1))
    benchmark(many, calls, convert, audio, *rest)
    if way == "encode":  # on samples from 0 up they agree; audioop is one step off on some below
        audio = np.abs(np.frombuffer(audio, "<i2")).astype("<i2").tobytes()
    reference, *rest_of_reference = CODECS[way]["audioop"]
    assert convert(audio, *rest) == reference(audio, *rest_of_reference)
