"""An hour of a call, both directions, as fast as it runs: nothing drifts, nothing piles up."""

import base64
import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame

from pipecat_twilio import SincResampler, TwilioFrameSerializer

HOUR_SECS = 3600
RATE_IN, RATE_OUT = 16000, 24000

CODES = np.random.default_rng(1).bytes(160)
PCM = np.random.default_rng(2).integers(-9000, 9000, RATE_OUT // 25).astype("<i2").tobytes()
TEXT = json.dumps(
    {
        "event": "media",
        "media": {
            "track": "inbound",
            "timestamp": "@",
            "payload": base64.b64encode(CODES).decode(),
        },
    }
)


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def test_an_hour_of_a_call_neither_drifts_nor_grows(traced, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr("pipecat_twilio.serializer.monotonic", lambda: now)
    params = TwilioFrameSerializer.InputParams(auto_hang_up=False)
    serializer = TwilioFrameSerializer("MZ1", params=params)
    await serializer.setup(SimpleNamespace(audio_in_sample_rate=RATE_IN))
    before, after = TEXT.split("@")
    heard = sent = in_use = 0
    for second in range(HOUR_SECS):
        for tick in range(50):
            timestamp = 1000 * second + 20 * tick
            frame = await serializer.deserialize(f"{before}{timestamp}{after}")
            assert isinstance(frame, InputAudioRawFrame)
            heard += frame.num_frames
        for tick in range(25):
            now = second + 0.04 * tick
            text = await serializer.serialize(OutputAudioRawFrame(PCM, RATE_OUT, 1))
            assert isinstance(text, str)
            sent += len(text)
        # Each second of input is exactly a second of output, from the first to the last.
        assert heard == RATE_IN * (second + 1)
        if second == 60:
            in_use = tracemalloc.get_traced_memory()[0]
    size = len(json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": ""}}))
    assert sent == 25 * HOUR_SECS * (size + len(base64.b64encode(bytes(320))))
    # Integers and timestamps grow by a few bytes; audio that piled up would be thousands of KiB.
    assert tracemalloc.get_traced_memory()[0] - in_use < 4096


@pytest.mark.parametrize("rates", [(8000, 16000), (44100, 8000), (24000, 8000)])
def test_after_an_hour_the_filter_is_where_it_was(rates: tuple[int, int]) -> None:
    resampler = SincResampler(*rates, clear_after_secs=None)
    chunk = np.random.default_rng(3).integers(-9000, 9000, rates[0] // 50).astype("<i2").tobytes()
    given = sum(len(resampler.process(chunk)) for _ in range(50 * HOUR_SECS))
    assert given == 2 * rates[1] * HOUR_SECS
    resampler.process(bytes(50 * len(chunk)))  # a second of silence leaves no trace
    fresh = SincResampler(*rates, clear_after_secs=None)
    assert [resampler.process(chunk) for _ in range(50)] == [
        fresh.process(chunk) for _ in range(50)
    ]
