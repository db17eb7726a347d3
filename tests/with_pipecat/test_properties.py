"""Properties that hold for any input, tried on examples that Hypothesis makes.

Any text or bytes from the network become a frame or None; any audio and any message from the bot
become documented JSON or None; and the audio that follows is intact. conftest.py has the profiles:
a quick one with the same examples every time, and the long one of `tox -e fuzz`.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from streams import CORPUS, STREAM_SID, media, payload_of, ready

from pipecat_twilio import (
    SincResampler,
    TwilioFrameSerializer,
    messages,
    ulaw,
)

CODES = np.random.default_rng(1).bytes(320)
PCM = np.random.default_rng(2).integers(-9000, 9000, 1280).astype("<i2").tobytes()
GOOD_RATE = 32_000  # of PCM: 40 ms
IDLE_SECS = 60  # after which history is dropped; only the stream's own time can pass it here
BOT_RATES = [None, None, None, 8000, 16000, 22050, 24000, 48000]  # None: as before

# A whole call takes up to half a second: too long for 3,000 examples in the usual time limit.
pytestmark = pytest.mark.timeout(max(120, settings().max_examples))

FOUND = [pytest.param(file.read_bytes(), id=file.name) for file in sorted(CORPUS.iterdir())]


def call(rate: int = 16000) -> Awaitable[TwilioFrameSerializer]:
    """Returns a serializer that sees a pause only if the stream's own time jumps."""
    return ready(rate, resampler_clear_after_secs=IDLE_SECS)


def resampled(in_rate: int, out_rate: int, pcm: bytes) -> bytes:
    return SincResampler(in_rate, out_rate, clear_after_secs=None).process(pcm)


EXPECTED = resampled(8000, 16000, ulaw.decode(CODES))


async def check_that_audio_survives(junk: Iterable[str | bytes]) -> None:
    """Checks that audio after any messages is intact."""
    serializer = await call()
    for data in junk:
        frame = await serializer.deserialize(data)
        assert frame is None or isinstance(frame, Frame)
    first = await serializer.deserialize(media(CODES[:160], 20))
    second = await serializer.deserialize(media(CODES[160:], 40))
    # There may be audio among the junk, which rings on for 8 ms: 256 bytes.
    assert len(first.audio) == 640
    assert first.audio[256:] == EXPECTED[256:640]
    assert second.audio == EXPECTED[640:]


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
        "streamSid": st.just(STREAM_SID) | anything,
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

    @given(audio_frames)
    async def test_audio_is_sent_for_as_long_as_it_lasts(self, frame) -> None:
        text = await (await call()).serialize(frame)
        samples = -(-(len(frame.audio) // (2 * frame.num_channels)) * 8000 // frame.sample_rate)
        assert len(payload_of(text) if text else b"") == samples

    @given(
        message_frames,
        st.dictionaries(
            texts, json_values(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
        ),
    )
    async def test_a_message_that_can_be_json_is_sent_as_it_is(self, frame_type, message) -> None:
        assert json.loads(await (await call()).serialize(frame_type(message))) == message


class Stream:
    """The expected output of one direction since its last fresh start."""

    def __init__(self, in_rate: int, out_rate: int, code: Any = bytes) -> None:
        self.in_rate, self.out_rate, self.code = in_rate, out_rate, code
        self.taken = self.given = b""

    def check(self) -> None:
        """Compares all output so far."""
        assert self.given == self.code(resampled(self.in_rate, self.out_rate, self.taken))

    def check_size(self) -> None:
        """Checks that all output that is due was returned."""
        samples = -(-len(self.taken) // 2 * self.out_rate // self.in_rate)
        assert len(self.given) == len(self.code(bytes(2 * samples)))


class Call(RuleBasedStateMachine):
    """A call in which anything may come next, in both directions.

    Streams are checked whole: the audio since the last fresh start, in however many pieces, is
    what one resampler makes of it in one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.serializer: TwilioFrameSerializer = self.runner.run(call(16000))
        self.now_ms = 0
        self.pipeline_rate = 16000
        self.heard = Stream(8000, 16000)
        self.said: Stream | None = None
        self.rest, self.rest_key = b"", (0, 0)  # of a sample cut by a frame's end

    def arrives(self, message: str | bytes) -> Any:
        return self.runner.run(self.serializer.deserialize(message))

    def leaves(self, frame: Frame) -> Any:
        return self.runner.run(self.serializer.serialize(frame))

    @rule(
        codes=st.binary(min_size=1, max_size=400),
        pause_ms=st.sampled_from([0, 0, 0, 20, 1000 * IDLE_SECS - 1000, 1000 * IDLE_SECS + 1000]),
    )
    def the_caller_speaks(self, codes: bytes, pause_ms: int) -> None:
        if self.heard.out_rate != self.pipeline_rate or pause_ms > 1000 * IDLE_SECS:
            self.heard.check()
            self.heard = Stream(8000, self.pipeline_rate)
        self.now_ms += pause_ms
        frame = self.arrives(media(codes, self.now_ms))
        self.now_ms += len(codes) // 8
        assert (frame.sample_rate, frame.num_channels) == (self.pipeline_rate, 1)
        self.heard.taken += ulaw.decode(codes)
        self.heard.given += frame.audio

    @rule(codes=st.binary(max_size=400))
    def the_bots_own_audio_comes_back(self, codes: bytes) -> None:
        message = json.loads(media(codes, self.now_ms))
        message["media"]["track"] = "outbound"
        assert self.arrives(json.dumps(message)) is None

    @rule(digit=st.sampled_from("0123456789*#"))
    def the_caller_presses_a_key(self, digit: str) -> None:
        message = {"event": "dtmf", "streamSid": STREAM_SID, "dtmf": {"digit": digit}}
        assert self.arrives(json.dumps(message)).button.value == digit

    @rule(name=st.text())
    def a_mark_comes_back(self, name: str) -> None:
        mark = messages.mark(STREAM_SID, name)
        assert json.loads(self.leaves(OutputTransportMessageUrgentFrame(mark))) == mark
        frame = self.arrives(json.dumps(mark))
        assert (frame.name, frame.cleared) == (name, False)

    @rule(data=unreadable)
    def something_unreadable_comes(self, data: str | bytes) -> None:
        assert self.arrives(data) is None

    @rule(rate=st.sampled_from([8000, 16000, 22050, 24000]))
    def the_pipeline_is_set_up_again(self, rate: int) -> None:
        self.pipeline_rate = rate
        self.runner.run(self.serializer.setup(SimpleNamespace(audio_in_sample_rate=rate)))

    def speak(self, pcm: bytes, audio: bytes, rate: int, channels: int) -> None:
        """Sends audio that is `pcm` on each channel."""
        if (rate, channels) != self.rest_key:
            self.rest, self.rest_key = b"", (rate, channels)
        if self.said is None or rate != self.said.in_rate:
            if self.said:
                self.said.check()
            self.said = Stream(rate, 8000, ulaw.encode)
        text = self.leaves(OutputAudioRawFrame(audio, rate, channels))
        pcm = self.rest + pcm
        whole = len(pcm) // 2 * 2
        self.said.taken += pcm[:whole]
        self.rest = pcm[whole:]
        self.said.given += payload_of(text) if text else b""

    @rule(audio=st.binary(min_size=1, max_size=2000), rate=st.sampled_from(BOT_RATES))
    def the_bot_speaks(self, audio: bytes, rate: int | None) -> None:
        self.speak(audio, audio, rate or (self.said.in_rate if self.said else 24000), 1)

    @rule(
        samples=st.binary(min_size=1, max_size=1000).map(lambda data: data * 2),
        channels=st.sampled_from([2, 3, 8]),
        rate=st.sampled_from([16000, 24000]),
    )
    def the_bot_speaks_on_more_channels(self, samples: bytes, channels: int, rate: int) -> None:
        # The same on all channels, so that the mean of them is it, however it is rounded.
        audio = np.repeat(np.frombuffer(samples, "<i2"), channels).tobytes()
        self.speak(samples, audio, rate, channels)

    @rule()
    def the_bot_is_interrupted(self) -> None:
        if self.said:
            self.said.check()
            self.said = Stream(self.said.in_rate, 8000, ulaw.encode)
        self.rest = b""
        clear = {"event": "clear", "streamSid": STREAM_SID}
        assert json.loads(self.leaves(InterruptionFrame())) == clear

    @rule(message=anything)
    def the_bot_sends_a_message(self, message: Any) -> None:
        text = self.leaves(OutputTransportMessageFrame(message))
        assert text is None or json.loads(text) == message

    @invariant()
    def all_audio_that_is_due_has_left(self) -> None:
        self.heard.check_size()
        if self.said:
            self.said.check_size()

    def teardown(self) -> None:
        self.heard.check()
        if self.said:
            self.said.check()
        self.runner.close()


TestCall = Call.TestCase
