"""An hour of a call, in both directions, as fast as possible: no drift, no growth."""

import tracemalloc

import numpy as np
import pytest
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from streams import STREAM_SID, media, ready, speech, traced

from pipecat_twilio import SincResampler, messages

HOUR_SECS = 3600
RATE_IN, RATE_OUT = 16000, 24000

CODES = np.random.default_rng(1).bytes(160)
PCM = speech(RATE_OUT // 25)


async def test_an_hour_of_a_call_neither_drifts_nor_grows(clock) -> None:
    before, after = media(CODES, "@").split("@")
    heard = sent = in_use = 0
    with traced():
        serializer = await ready(RATE_IN)
        for second in range(HOUR_SECS):
            for tick in range(50):
                timestamp = 1000 * second + 20 * tick
                frame = await serializer.deserialize(f"{before}{timestamp}{after}")
                assert isinstance(frame, InputAudioRawFrame)
                heard += frame.num_frames
            for tick in range(25):
                clock.now = second + 0.04 * tick
                text = await serializer.serialize(OutputAudioRawFrame(PCM, RATE_OUT, 1))
                assert isinstance(text, str)
                sent += len(text)
            # Each second of input is exactly a second of output, from the first to the last.
            assert heard == RATE_IN * (second + 1)
            if second == 60:
                in_use = tracemalloc.get_traced_memory()[0]
        # Numbers grow by a few bytes; audio that piled up would be thousands of KiB.
        assert tracemalloc.get_traced_memory()[0] - in_use < 4096
    assert sent == 25 * HOUR_SECS * len(messages.media(STREAM_SID, bytes(320)))


@pytest.mark.parametrize("rates", [(8000, 16000), (44100, 8000), (24000, 8000)])
def test_after_an_hour_the_filter_is_where_it_was(rates: tuple[int, int]) -> None:
    resampler = SincResampler(*rates, clear_after_secs=None)
    chunk = speech(rates[0] // 50)
    given = sum(len(resampler.process(chunk)) for _ in range(50 * HOUR_SECS))
    assert given == 2 * rates[1] * HOUR_SECS
    resampler.process(bytes(50 * len(chunk)))  # a second of silence leaves no trace
    fresh = SincResampler(*rates, clear_after_secs=None)
    assert [resampler.process(chunk) for _ in range(50)] == [
        fresh.process(chunk) for _ in range(50)
    ]
