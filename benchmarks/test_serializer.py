"""The serializer against Pipecat's own, and against what no serializer can do without."""

import base64
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from measuring import pieces, run, speech_like
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer

from pipecat_twilio import SincResampler, TwilioFrameSerializer, messages, ulaw

STREAM_SID = "MZ" + "1" * 32
RATES = (8000, 16000, 24000)
SECS = 2
CALLS = 100


class Floor:
    """What no serializer can do without: a coroutine, JSON, mu-law, the filter, Pipecat's frame."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.inbound = SincResampler(8000, rate, clear_after_secs=None)
        self.outbound = SincResampler(rate, 8000, clear_after_secs=None)
        self.parse = msgspec.json.Decoder(messages.Message, strict=False).decode

    async def deserialize(self, text: str) -> InputAudioRawFrame:
        codes = self.parse(text).media.payload
        return InputAudioRawFrame(self.inbound.process(ulaw.decode(codes)), self.rate, 1)

    async def serialize(self, frame: OutputAudioRawFrame) -> str:
        return messages.media(STREAM_SID, ulaw.encode(self.outbound.process(frame.audio)))


SERIALIZERS: dict[str, Any] = {"ours": TwilioFrameSerializer, "pipecat": PipecatSerializer}
FLOOR = "floor: coroutine, JSON, mu-law, filter, frame"


def made(who: str, rate: int) -> Any:
    """Returns a serializer that is ready for a call, or the floor."""
    if who not in SERIALIZERS:
        return Floor(rate)
    maker = SERIALIZERS[who]
    serializer = maker(STREAM_SID, params=maker.InputParams(auto_hang_up=False))
    run(serializer.setup(SimpleNamespace(audio_in_sample_rate=rate)))
    return serializer


def inbound(secs: int = SECS) -> list[str]:
    """Returns what Twilio sends: a message for each 20 ms."""
    texts = []
    for i, codes in enumerate(pieces(ulaw.encode(speech_like(secs, 8000)), 160)):
        message = json.loads(messages.media(STREAM_SID, codes))
        message["media"] |= {"track": "inbound", "chunk": str(i + 1), "timestamp": str(20 * i)}
        texts.append(json.dumps(message | {"sequenceNumber": str(i + 2)}))
    return texts


def outbound(rate: int, secs: int = SECS) -> list[bytes]:
    """Returns the audio that the transport makes frames of: 40 ms each."""
    return pieces(speech_like(secs, rate), rate // 25 * 2)


async def hear(serializer: Any, texts: list[str]) -> list[Any]:
    """Awaits a call for each message, as the transport's loop does."""
    return [await serializer.deserialize(text) for text in texts]


async def say(serializer: Any, pcm: list[bytes], rate: int) -> list[Any]:
    """Awaits a call for each frame; the transport makes one of each piece of audio."""
    return [await serializer.serialize(OutputAudioRawFrame(piece, rate, 1)) for piece in pcm]


def assert_heard(pcm: bytes, rate: int, said: bytes, share_of_band: float) -> None:
    """Asserts that about all of `said` came out, with the share of its power that was to remain."""
    assert len(pcm) / 2 / rate > SECS - 0.2
    powers = [np.mean(np.frombuffer(audio, "<i2").astype(float) ** 2) for audio in (pcm, said)]
    assert abs(10 * np.log10(powers[0] / powers[1] / share_of_band)) < 1.5


@pytest.mark.parametrize("who", [*SERIALIZERS, FLOOR])
@pytest.mark.parametrize("rate", RATES)
def test_deserialize(benchmark, who: str, rate: int) -> None:
    benchmark.group, benchmark.param = f"deserialize 20 ms, to {rate // 1000} kHz", who
    texts = inbound()
    benchmark.extra_info["calls"] = len(texts)
    serializer = made(who, rate)
    frames = benchmark(lambda: run(hear(serializer, texts)))
    pcm = b"".join(frame.audio for frame in frames if frame)
    assert_heard(pcm, rate, speech_like(SECS, 8000), 1)


@pytest.mark.parametrize("who", [*SERIALIZERS, FLOOR])
@pytest.mark.parametrize("rate", RATES)
def test_serialize(benchmark, who: str, rate: int) -> None:
    benchmark.group, benchmark.param = f"serialize 40 ms, from {rate // 1000} kHz", who
    pcm = outbound(rate)
    benchmark.extra_info["calls"] = len(pcm)
    serializer = made(who, rate)
    sent = benchmark(lambda: run(say(serializer, pcm, rate)))
    payloads = [json.loads(text)["media"]["payload"] for text in sent if text]
    heard = b"".join(ulaw.decode(base64.b64decode(payload)) for payload in payloads)
    # Of white noise the telephone's share of the band remains.
    assert_heard(heard, 8000, speech_like(SECS, rate), 8000 / rate)


@pytest.mark.parametrize("who", SERIALIZERS)
def test_calls(benchmark, who: str) -> None:
    """A second of 100 calls, as fast as it goes."""
    benchmark.group, benchmark.param = "100 calls for 1 s, 16 kHz in, 24 kHz out", who
    serializers = [made(who, 16000) for _ in range(CALLS)]
    texts, pcm = inbound(1), outbound(24000, 1)

    async def second() -> tuple[int, int]:
        heard = sent = 0
        for tick in range(50):
            for serializer in serializers:
                if frame := await serializer.deserialize(texts[tick]):
                    heard += len(frame.audio)
                if tick % 2:
                    out = OutputAudioRawFrame(pcm[tick // 2], 24000, 1)
                    if text := await serializer.serialize(out):
                        sent += len(text)
        return heard, sent

    heard, sent = benchmark(lambda: run(second()))
    assert heard > 0.8 * CALLS * 2 * 16000
    assert sent > 0.8 * CALLS * 8000 * 4 / 3  # in base64
    if not benchmark.disabled:
        benchmark.extra_info["live calls a core"] = round(CALLS / benchmark.stats.stats.median)
