"""Properties that hold for any input, tried on examples that Hypothesis makes.

Any text or bytes from the network become a frame or None; any audio and any message from the bot
become documented JSON or None; and the audio that follows is intact. conftest.py has the profiles:
a quick one with the same examples every time, and the long one of `tox -e fuzz`.
"""

import json
from base64 import b64encode
from collections.abc import Awaitable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipecat.frames.frames import (
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from streams import CODES, CORPUS, IDLE_SECS, check_that_audio_survives, media, payload_of, ready

from pipecat_twilio import SincResampler, TwilioFrameSerializer, ulaw

PCM = np.random.default_rng(2).integers(-9000, 9000, 1280).astype("<i2").tobytes()
GOOD_RATE = 32_000  # of PCM: 40 ms

# A whole call takes up to half a second: too long for 3,000 examples in the usual time limit.
pytestmark = pytest.mark.timeout(max(120, settings().max_examples))

FOUND = [pytest.param(file.read_bytes(), id=file.name) for file in sorted(CORPUS.iterdir())]


def call(rate: int = 16000) -> Awaitable[TwilioFrameSerializer]:
    """Returns a serializer that sees a pause only if the stream's own time jumps."""
    return ready(rate, resampler_clear_after_secs=IDLE_SECS)


def resampled(in_rate: int, out_rate: int, pcm: bytes) -> bytes:
    return SincResampler(in_rate, out_rate, clear_after_secs=None).process(pcm)


def no_constant(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


texts = st.text(st.characters(exclude_categories=()))  # lone surrogates too


def json_values(numbers: st.SearchStrategy) -> st.SearchStrategy:
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda values: st.lists(values, max_size=4) | st.dictionaries(texts, values, max_size=4),
        max_leaves=10,
    )


anything = json_values(st.integers() | st.floats())


def part(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """An object whose fields are as documented, or anything else, or missing; or no object."""
    optional = {name: field | anything for name, field in fields.items()}
    return st.fixed_dictionaries({}, optional=optional) | anything


near_misses = st.fixed_dictionaries(
    {"event": st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop"]) | texts},
    optional={
        "streamSid": st.just("MZ1") | anything,
        "media": part(
            track=st.sampled_from(["inbound", "outbound"]),
            timestamp=st.integers().map(str) | st.sampled_from(["nan", "inf", "-1e999", "1_0"]),
            payload=st.binary(max_size=400).map(lambda data: b64encode(data).decode()) | texts,
        ),
        "dtmf": part(track=st.just("inbound_track"), digit=st.characters()),
        "mark": part(name=texts),
        "start": part(streamSid=texts, callSid=texts, tracks=anything, customParameters=anything),
        "stop": part(accountSid=texts, callSid=texts),
    },
).map(json.dumps)
cut_short = st.integers(0, len(media(CODES, 20)) - 1).map(lambda end: media(CODES, 20)[:end])
unreadable = texts | st.binary() | cut_short
arriving = unreadable | near_misses | near_misses.map(str.encode)

rates = st.sampled_from([11025, 22050, 44100]) | st.integers(20, 960).map(lambda n: 50 * n)
audio_frames = st.builds(
    OutputAudioRawFrame,
    audio=st.binary(max_size=2000),
    sample_rate=rates.filter(lambda rate: rate != GOOD_RATE),
    num_channels=st.integers(1, 8),
)

no_json = st.binary() | st.sets(st.integers()) | st.dictionaries(st.tuples(texts), texts)
to_be_sent = json_values(st.floats() | st.complex_numbers() | no_json)
message_frames = st.sampled_from([OutputTransportMessageFrame, OutputTransportMessageUrgentFrame])


class TestFromTheNetwork:
    """What `deserialize` returns for any input."""

    @given(st.lists(arriving, max_size=8))
    async def test_anything_is_a_frame_or_none_and_the_audio_after_it_is_intact(self, junk) -> None:
        await check_that_audio_survives(junk)

    @pytest.mark.parametrize("conversation", FOUND)
    async def test_every_file_of_the_fuzzers_corpus_is_handled_too(self, conversation) -> None:
        await check_that_audio_survives(conversation.split(b"\n"))
        await check_that_audio_survives(conversation.decode(errors="replace").split("\n"))


class TestFromTheBot:
    """What `serialize` returns for any audio and any message."""

    @given(st.lists(audio_frames | message_frames.flatmap(lambda t: st.builds(t, to_be_sent))))
    async def test_anything_is_text_or_none_and_the_audio_after_it_is_intact(self, frames) -> None:
        serializer = await call()
        for frame in frames:
            text = await serializer.serialize(frame)
            if text is not None:
                json.loads(text, parse_constant=no_constant)
        pieces = [
            await serializer.serialize(OutputAudioRawFrame(pcm, GOOD_RATE, 1))
            for pcm in (PCM[:1280], PCM[1280:])
        ]
        expected = ulaw.encode(resampled(GOOD_RATE, 8000, PCM))
        assert b"".join(map(payload_of, pieces)) == expected
