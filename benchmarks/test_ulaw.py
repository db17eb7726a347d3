"""mu-law against audioop and a NumPy table, at a message, a second and a minute of audio."""

import audioop
from typing import Any

import numpy as np
import pytest
from measuring import many

from pipecat_twilio import ulaw

CODES = np.frombuffer(audioop.ulaw2lin(bytes(range(256)), 2), "<i2")
ENCODED = np.frombuffer(ulaw.encode(np.arange(-32768, 32768, dtype="<i2")), np.uint8)


def decode_by_table(codes: bytes) -> bytes:
    return CODES[np.frombuffer(codes, np.uint8)].tobytes()


def encode_by_table(pcm: bytes) -> bytes:
    return ENCODED[np.frombuffer(pcm, "<i2").astype(int) + 32768].tobytes()


# Each a function, and what it takes beside the audio.
DECODERS: dict[str, tuple[Any, ...]] = {
    "ours": (ulaw.decode,),
    "audioop": (audioop.ulaw2lin, 2),
    "NumPy table": (decode_by_table,),
}
ENCODERS: dict[str, tuple[Any, ...]] = {
    "ours": (ulaw.encode,),
    "audioop": (audioop.lin2ulaw, 2),
    "NumPy table": (encode_by_table,),
}
SIZES = {"160 B": 160, "8 kB": 8000, "1 MiB": 1 << 20}


@pytest.mark.parametrize("who", DECODERS)
@pytest.mark.parametrize("size", SIZES)
def test_decode(benchmark, who: str, size: str) -> None:
    benchmark.group, benchmark.param = f"ulaw.decode, {size}", who
    calls = benchmark.extra_info["calls"] = max(1, 100_000 // SIZES[size])
    convert, *rest = DECODERS[who]
    codes = np.random.default_rng(1).bytes(SIZES[size])
    benchmark(many, calls, convert, codes, *rest)
    assert convert(codes, *rest) == audioop.ulaw2lin(codes, 2)


@pytest.mark.parametrize("who", ENCODERS)
@pytest.mark.parametrize("size", SIZES)
def test_encode(benchmark, who: str, size: str) -> None:
    benchmark.group, benchmark.param = f"ulaw.encode, {size}", who
    calls = benchmark.extra_info["calls"] = max(1, 100_000 // SIZES[size])
    convert, *rest = ENCODERS[who]
    pcm = np.random.default_rng(1).bytes(2 * SIZES[size])
    benchmark(many, calls, convert, pcm, *rest)
    # On samples from 0 up all encoders are to agree; audioop is off by one interval on some below.
    louder = np.abs(np.frombuffer(pcm, "<i2")).astype("<i2").tobytes()
    assert convert(louder, *rest) == audioop.lin2ulaw(louder, 2)
