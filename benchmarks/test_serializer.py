"""The serializer against Pipecat's own: single messages, whole calls, and what a call occupies."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from measuring import run, speech_like
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer

from pipecat_twilio import TwilioFrameSerializer, ulaw

SERIALIZERS: dict[str, Any] = {"ours": TwilioFrameSerializer, "pipecat": PipecatSerializer}
STREAM_SID = "MZ" + "1" * 32
RATES = (8000, 16000, 24000)
SECS = 2
CALLS = 100


def made(who: str, rate: int) -> Any:
    serializer_class = SERIALIZERS[who]
    params = serializer_class.InputParams(auto_hang_up=False)
    serializer = serializer_class(STREAM_SID, params=params)
    run(serializer.setup(SimpleNamespace(audio_in_sample_rate=rate)))
    return serializer


def inbound(secs: int = SECS) -> list[str]:
    """Returns what Twilio sends: a message for each 20 ms."""
    codes = ulaw.encode(speech_like(secs, 8000))
    return [
        json.dumps(
            {
                "event": "media",
                "sequenceNumber": str(i + 2),
                "media": {
                    "track": "inbound",
                    "chunk": str(i + 1),
                    "timestamp": str(20 * i),
                    "payload": base64.b64encode(codes[160 * i :][:160]).decode(),
                },
                "streamSid": STREAM_SID,
            }
        )
        for i in range(50 * secs)
    ]


def outbound(rate: int, secs: int = SECS) -> list[OutputAudioRawFrame]:
    """Returns what the transport hands to the serializer: a frame for each 40 ms."""
    pcm, size = speech_like(secs, rate), rate // 25 * 2
    return [OutputAudioRawFrame(pcm[i : i + size], rate, 1) for i in range(0, len(pcm), size)]


async def all_of(method: Any, arguments: list[Any]) -> list[Any]:
    """Awaits a call for each argument, as the transport's loop does."""
    return [await method(argument) for argument in arguments]


def level_db(pcm: bytes) -> float:
    return float(10 * np.log10(np.mean(np.frombuffer(pcm, "<i2").astype(float) ** 2)))


@pytest.mark.parametrize("who", [*SERIALIZERS, "Pipecat's frame alone"])
@pytest.mark.parametrize("rate", RATES)
def test_deserialize(benchmark, who: str, rate: int) -> None:
    benchmark.group, benchmark.param = f"deserialize 20 ms, to {rate // 1000} kHz", who
    messages = inbound()
    benchmark.extra_info["calls"] = len(messages)
    if who not in SERIALIZERS:  # what nobody can go below
        pcm = bytes(rate // 50 * 2)
        benchmark(lambda: [InputAudioRawFrame(pcm, rate, 1) for _ in messages])
        return
    serializer = made(who, rate)
    benchmark(lambda: run(all_of(serializer.deserialize, messages)))
    frames = run(all_of(made(who, rate).deserialize, messages))
    heard = b"".join(frame.audio for frame in frames if frame)
    # All but what is held back, about as loud: noise loses what is above the telephone band.
    assert len(heard) / 2 / rate > SECS - 0.2
    assert abs(level_db(heard) - level_db(speech_like(SECS, 8000))) < 1.5


@pytest.mark.parametrize("who", SERIALIZERS)
@pytest.mark.parametrize("rate", RATES)
def test_serialize(benchmark, who: str, rate: int) -> None:
    benchmark.group, benchmark.param = f"serialize 40 ms, from {rate // 1000} kHz", who
    frames = outbound(rate)
    benchmark.extra_info["calls"] = len(frames)
    serializer = made(who, rate)
    benchmark(lambda: run(all_of(serializer.serialize, frames)))
    texts = run(all_of(made(who, rate).serialize, frames))
    sent = [base64.b64decode(json.loads(text)["media"]["payload"]) for text in texts if text]
    assert len(b"".join(sent)) / 8000 > SECS - 0.2
    # Of white noise the telephone's share of the band remains.
    expected = level_db(speech_like(SECS, rate)) - 10 * np.log10(rate / 8000)
    assert abs(level_db(ulaw.decode(b"".join(sent))) - expected) < 1.5


@pytest.mark.parametrize("who", SERIALIZERS)
def test_calls(benchmark, who: str) -> None:
    """A second of 100 calls through one event loop, as fast as it goes."""
    benchmark.group, benchmark.param = "100 calls for 1 s, 16 kHz in, 24 kHz out", who
    serializers = [made(who, 16000) for _ in range(CALLS)]
    messages, frames = inbound(1), outbound(24000, 1)

    async def second() -> int:
        sent = 0
        for tick in range(50):
            for serializer in serializers:
                await serializer.deserialize(messages[tick])
            if tick % 2:
                for serializer in serializers:
                    sent += bool(await serializer.serialize(frames[tick // 2]))
        return sent

    with asyncio.Runner() as runner:
        assert benchmark(lambda: runner.run(second())) > 0
    if not benchmark.disabled:
        benchmark.extra_info["live calls a core"] = round(CALLS / benchmark.stats.stats.median)


@pytest.mark.parametrize("who", SERIALIZERS)
def test_memory_of_a_call(benchmark, who: str) -> None:
    """What one of 1,000 open calls occupies, after a second of audio both ways."""
    benchmark.group, benchmark.param = "opening a call", who
    program = Path(__file__).parent / "memory.py"
    # A script finds its neighbours by its own folder.
    done = subprocess.run(
        [sys.executable, program, who],
        check=True,
        env=os.environ | {"PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
    )
    benchmark.extra_info.update(json.loads(done.stdout))
    benchmark.pedantic(made, (who, 16000), rounds=100)
    if who == "ours":
        assert benchmark.extra_info["traced KiB"] <= 64
        assert benchmark.extra_info["resident KiB"] <= 64
