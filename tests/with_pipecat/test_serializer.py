"""The serializer, compared with Pipecat's own where the two must agree."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, patch

import numpy as np
import pytest
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
    SystemFrame,
    TextFrame,
    TTSAudioRawFrame,
)
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from streams import CALL, STREAM_SID, TOKEN, media, payload_of, ready, speech

from pipecat_twilio import MarkFrame, SincResampler, TwilioFrameSerializer, ulaw
from pipecat_twilio.twilio.hangup import Outcome

# Since pipecat-ai 1.14; before it, the serializers are compared on all else.
PIPECAT_TAKES_API_KEYS = "api_key_sid" in inspect.signature(PipecatSerializer).parameters

QUIET = TwilioFrameSerializer.InputParams(auto_hang_up=False)

MINUTE = speech(60 * 8000)


def comparable(arguments: dict[str, str]) -> list[type]:
    """Returns Pipecat's serializer, if this release of it has the arguments."""
    knows = PIPECAT_TAKES_API_KEYS or not any(name.startswith("api_key") for name in arguments)
    return [PipecatSerializer] if knows else []


class TestConstructor:
    """It takes and refuses the same arguments as Pipecat's own."""

    def test_signature_and_defaults_are_pipecats(self) -> None:
        ours, theirs = (
            [(p.name, p.kind, p.default) for p in inspect.signature(c).parameters.values()]
            for c in (TwilioFrameSerializer, PipecatSerializer)
        )
        assert theirs == ours[: len(theirs)]
        assert len(theirs) == len(ours) or not PIPECAT_TAKES_API_KEYS
        assert (
            PipecatSerializer.InputParams().model_dump().items()
            <= TwilioFrameSerializer.InputParams().model_dump().items()
        )

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"call_sid": "CA1"},
            {"account_sid": "AC1", "auth_token": "t"},
            {"call_sid": "", "account_sid": "AC1", "auth_token": "t"},
            CALL,
            {**TOKEN, "api_key_sid": "SK1"},
            {**TOKEN, "api_key_secret": "s"},
            {**TOKEN, "api_key_sid": "SK1", "api_key_secret": "s"},
            {**CALL, "api_key_sid": "SK1"},
            {**CALL, "api_key_secret": "s"},
            {**TOKEN, "region": "ie1"},
            {**TOKEN, "edge": "dublin"},
            {**TOKEN, "region": "ie1", "edge": ""},
        ],
    )
    def test_arguments_that_pipecat_refuses_are_refused(self, arguments: dict[str, str]) -> None:
        for serializer in (*comparable(arguments), TwilioFrameSerializer):
            with pytest.raises(ValueError, match=r"auto_hang_up|auth_token|api_key|region"):
                serializer(STREAM_SID, **arguments)
            serializer(STREAM_SID, **arguments, params=serializer.InputParams(auto_hang_up=False))

    @pytest.mark.parametrize(
        "arguments",
        [
            TOKEN,
            {**TOKEN, "region": "ie1", "edge": "dublin"},
            {**TOKEN, "region": "ie1", "base_url": "https://api.example.com"},
            {**CALL, "api_key_sid": "SK1", "api_key_secret": "s"},
        ],
    )
    def test_arguments_that_pipecat_takes_are_taken(self, arguments: dict[str, str]) -> None:
        for serializer in (*comparable(arguments), TwilioFrameSerializer):
            made = serializer(STREAM_SID, **arguments)
            assert made._call_sid == CALL["call_sid"]
            assert made._account_sid == CALL["account_sid"]
            assert made._hangup_attempted is False

    @pytest.mark.parametrize("secs", [-1, -0.001, float("nan")])
    def test_a_negative_pause_is_refused_by_name(self, secs) -> None:
        with pytest.raises(ValueError, match="resampler_clear_after_secs"):
            TwilioFrameSerializer.InputParams(resampler_clear_after_secs=secs)
        assert TwilioFrameSerializer.InputParams(resampler_clear_after_secs=0)


class TestDeserialize:
    """From Twilio to the pipeline."""

    @pytest.mark.parametrize("rate", [8000, 16000, 24000, 22050])
    async def test_20_ms_in_is_20_ms_out_on_the_same_call(self, rate: int) -> None:
        serializer = await ready(rate)
        codes = np.random.default_rng(1).bytes(1600)
        expected = SincResampler(8000, rate).process(ulaw.decode(codes))
        heard = b""
        for i in range(10):
            frame = await serializer.deserialize(media(codes[160 * i :][:160], 20 * i))
            assert type(frame) is InputAudioRawFrame
            assert (frame.sample_rate, frame.num_channels) == (rate, 1)
            assert frame.num_frames == rate // 50
            heard += frame.audio
        assert heard == expected

    async def test_only_the_inbound_track_is_the_caller(self) -> None:
        serializer = await ready()
        assert await serializer.deserialize(media(bytes(160), track="outbound")) is None
        assert await serializer.deserialize(media(bytes(160), track="inbound")) is not None
        without_track = json.dumps({"event": "media", "media": {"payload": "/w=="}})
        assert await serializer.deserialize(without_track) is not None

    async def test_no_audio_is_no_frame(self) -> None:
        assert await (await ready()).deserialize(media(b"")) is None

    @pytest.mark.parametrize("digit", "0123456789*#")
    async def test_digits_become_dtmf_frames(self, digit: str) -> None:
        message = json.dumps({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": digit}})
        frame = await (await ready()).deserialize(message)
        assert type(frame) is InputDTMFFrame
        assert frame.button == KeypadEntry(digit)

    @pytest.mark.parametrize("digit", ["A", "D", "", "12", "x"])
    async def test_other_digits_are_dropped_with_a_warning(
        self, digit: str, log: list[str]
    ) -> None:
        message = json.dumps({"event": "dtmf", "dtmf": {"digit": digit}})
        assert await (await ready()).deserialize(message) is None
        assert any(line.startswith("WARNING") and repr(digit) in line for line in log)

    async def test_a_returning_mark_becomes_a_mark_frame(self) -> None:
        mark = {"event": "mark", "streamSid": STREAM_SID, "mark": {"name": "greeting"}}
        frame = await (await ready()).deserialize(json.dumps(mark | {"sequenceNumber": "4"}))
        assert type(frame) is MarkFrame
        assert isinstance(frame, SystemFrame)
        assert (frame.name, frame.stream_sid, frame.cleared) == ("greeting", STREAM_SID, False)
        assert str(frame).startswith("MarkFrame#")
        assert str(frame).endswith("('greeting', cleared: False)")
        bare = MarkFrame("greeting")
        assert (bare.stream_sid, bare.cleared) == ("", False)

    @pytest.mark.parametrize("event", ["connected", "stop"])
    async def test_other_documented_events_are_no_frame_and_no_fault(
        self, event: str, log: list[str]
    ) -> None:
        assert await (await ready()).deserialize(json.dumps({"event": event})) is None
        assert not log

    async def test_bad_messages_are_dropped_and_the_next_good_one_is_intact(
        self, log: list[str]
    ) -> None:
        serializer = await ready()
        codes = np.random.default_rng(1).bytes(320)
        expected = SincResampler(8000, 16000).process(ulaw.decode(codes))
        first = await serializer.deserialize(media(codes[:160], 0))
        for bad in (
            "",
            "{",
            b"\xff",
            None,
            5,
            '{"event": "media"}',
            media(b"x").replace("eA==", "!"),
        ):
            assert await serializer.deserialize(bad) is None
        second = await serializer.deserialize(media(codes[160:], 20))
        assert first.audio + second.audio == expected
        warnings = [line for line in log if line.startswith("WARNING")]
        assert 1 <= len(warnings) <= 3

    async def test_only_every_power_of_two_of_bad_messages_is_logged(self, log: list[str]) -> None:
        serializer = await ready()
        for _ in range(10_000):
            await serializer.deserialize("{")
        assert len(log) == 14  # 1, 2, 4 ... 8192
        assert "8192 dropped so far" in log[-1]

    async def test_audio_before_setup_is_dropped_with_a_warning(self, log: list[str]) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, params=QUIET)
        assert await serializer.deserialize(media(bytes(160))) is None
        assert "setup" in log[0]

    @pytest.mark.parametrize(
        ("gap_ms", "cleared"), [(20, False), (200, False), (220, True), (0, False), (-5000, False)]
    )
    async def test_the_idle_clock_is_the_streams_own(self, gap_ms: int, cleared: bool) -> None:
        serializer = await ready()
        first, second = ulaw.encode(speech(160)), ulaw.encode(speech(160, seed=2))
        await serializer.deserialize(media(first, 10_000))
        expected = SincResampler(8000, 16000, clear_after_secs=None)
        if not cleared:
            expected.process(ulaw.decode(first))
        frame = await serializer.deserialize(media(second, 10_000 + gap_ms))
        assert frame.audio == expected.process(ulaw.decode(second))

    @pytest.mark.parametrize("rate", [-1, 16000.5, "fast"])
    async def test_setup_refuses_an_impossible_rate(self, rate) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, params=QUIET)
        with pytest.raises(ValueError, match="audio_in_sample_rate must be a positive integer"):
            await serializer.setup(SimpleNamespace(audio_in_sample_rate=rate))


class TestSerialize:
    """From the pipeline to Twilio."""

    @pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
    async def test_40_ms_in_is_40_ms_out_on_the_same_call(self, rate: int) -> None:
        serializer = await ready()
        pcm = speech(rate // 5)
        expected = ulaw.encode(SincResampler(rate, 8000).process(pcm))
        size = rate // 25 * 2
        sent = b""
        for i in range(5):
            frame = OutputAudioRawFrame(pcm[size * i : size * (i + 1)], rate, 1)
            payload = payload_of(await serializer.serialize(frame))
            assert len(payload) == 320
            sent += payload
        assert sent == expected

    async def test_the_text_is_pipecats_to_the_byte(self) -> None:
        ours = await ready()
        theirs = PipecatSerializer(
            STREAM_SID, params=PipecatSerializer.InputParams(auto_hang_up=False)
        )
        # From -4 down the two encoders differ, as G.711 has it.
        pcm = np.abs(np.frombuffer(speech(320), "<i2")).tobytes()
        frames = [
            OutputAudioRawFrame(pcm, 8000, 1),
            InterruptionFrame(),
            OutputTransportMessageFrame(
                {"event": "mark", "streamSid": STREAM_SID, "mark": {"name": "é"}}
            ),
            OutputTransportMessageUrgentFrame({"a": [1, 2.5, None]}),
            OutputTransportMessageFrame({"label": "rtvi-ai", "type": "bot-ready"}),
            TextFrame("hello"),
            OutputAudioRawFrame(b"", 8000, 1),
            EndFrame(),
            CancelFrame(),
        ]
        for frame in frames:
            assert await ours.serialize(frame) == await theirs.serialize(frame)

    async def test_rtvi_messages_pass_when_they_are_not_to_be_ignored(self) -> None:
        serializer = await ready(ignore_rtvi_messages=False)
        message = {"label": "rtvi-ai", "type": "bot-ready"}
        assert (
            json.loads(await serializer.serialize(OutputTransportMessageFrame(message))) == message
        )

    @pytest.mark.parametrize("message", [{"a": object()}, {"a": float("nan")}, {b"a": 1}, {1, 2}])
    async def test_a_message_that_is_not_json_is_dropped_with_an_error(
        self, message, log: list[str]
    ) -> None:
        assert await (await ready()).serialize(OutputTransportMessageFrame(message)) is None
        assert any(line.startswith("ERROR") and "not JSON" in line for line in log)

    async def test_a_message_that_is_nested_too_deep_is_dropped_with_an_error(
        self, log: list[str]
    ) -> None:
        deep: list = []
        for _ in range(100_000):
            deep = [deep]
        endless: list = []
        endless.append(endless)
        serializer = await ready()
        for message in (deep, endless):
            assert await serializer.serialize(OutputTransportMessageFrame(message)) is None
        assert [line.split()[0] for line in log] == ["ERROR"] * 2

    @pytest.mark.parametrize(("pause_secs", "cleared"), [(0.19, False), (0.21, True)])
    async def test_after_a_pause_the_audio_before_it_is_not_heard(
        self, pause_secs: float, cleared: bool, clock
    ) -> None:
        serializer = await ready()
        await serializer.serialize(OutputAudioRawFrame(speech(640), 16000, 1))
        expected = SincResampler(16000, 8000, clear_after_secs=None)
        if not cleared:
            expected.process(speech(640))
        clock.now += pause_secs
        text = await serializer.serialize(OutputAudioRawFrame(speech(640, seed=2), 16000, 1))
        assert payload_of(text) == ulaw.encode(expected.process(speech(640, seed=2)))

    async def test_a_frame_at_a_rate_that_needs_too_large_a_filter_is_dropped_with_a_warning(
        self, log: list[str]
    ) -> None:
        serializer = await ready()
        for _ in range(100):
            assert await serializer.serialize(OutputAudioRawFrame(bytes(1764), 44101, 1)) is None
        assert len(log) == 7  # 1, 2, 4 ... 64
        assert "in_rate=44101" in log[0]
        assert await serializer.serialize(OutputAudioRawFrame(bytes(1764), 44100, 1))

    @pytest.mark.parametrize("kind", [TTSAudioRawFrame, InputAudioRawFrame])
    async def test_every_kind_of_audio_frame_is_audio(self, kind: type) -> None:
        frame = kind(audio=speech(320), sample_rate=8000, num_channels=1)
        assert payload_of(await (await ready()).serialize(frame)) == ulaw.encode(speech(320))

    async def test_a_subclass_of_the_interruption_frame_clears_too(self) -> None:
        text = await (await ready()).serialize(type("Barging", (InterruptionFrame,), {})())
        assert json.loads(text) == {"event": "clear", "streamSid": STREAM_SID}

    async def test_an_interruption_clears_twilio_and_leaks_no_stale_audio(self) -> None:
        serializer = await ready()
        await serializer.serialize(OutputAudioRawFrame(speech(640), 16000, 1))
        assert json.loads(await serializer.serialize(InterruptionFrame())) == {
            "event": "clear",
            "streamSid": STREAM_SID,
        }
        payload = payload_of(await serializer.serialize(OutputAudioRawFrame(bytes(1280), 16000, 1)))
        assert payload == b"\xff" * 320

    async def test_as_long_as_there_is_none_it_is_empty(self) -> None:
        serializer = TwilioFrameSerializer(None, params=QUIET)
        for frame in (OutputAudioRawFrame(bytes(640), 8000, 1), InterruptionFrame()):
            assert json.loads(await serializer.serialize(frame))["streamSid"] == ""


class Subclass(TwilioFrameSerializer):
    """Overrides what public projects override."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hung_up: list[str | None] = []

    async def _hang_up_call(self) -> None:
        self.hung_up.append(self._call_sid)

    async def serialize(self, frame):
        return await super().serialize(frame)

    async def deserialize(self, data):
        frame = await super().deserialize(data)
        return frame if isinstance(frame, InputAudioRawFrame) else None


class Waiting:
    """Replaces `PendingHangUp`: it ends the call when the test sets `ending`."""

    def __init__(self, end_call: Any, wait_secs: Any, *, name: str) -> None:
        self.end_call, self.wait_secs, self.name = end_call, wait_secs, name
        self.hurried = False
        self.ending = asyncio.Event()
        made.append(self)

    def hurry(self) -> None:
        self.hurried = True

    async def done(self) -> None:
        await self.ending.wait()
        await self.end_call()


made: list[Waiting] = []


@asynccontextmanager
async def ending(serializer: TwilioFrameSerializer, pcm: bytes) -> AsyncIterator[Waiting]:
    """Sends PCM, then ends the pipeline; yields the hang-up, which is made on exit."""
    made.clear()
    with patch("pipecat_twilio.twilio.hangup.PendingHangUp", Waiting):
        await serializer.serialize(OutputAudioRawFrame(pcm, 8000, 1))
        task = asyncio.create_task(serializer.serialize(EndFrame()))
        await asyncio.sleep(0)
    (waiting,) = made
    yield waiting
    waiting.ending.set()
    await task


class TestHangUp:
    """When the call is ended; tests/twilio has the request itself."""

    @pytest.mark.parametrize(
        "frames",
        [[EndFrame], [CancelFrame], [EndFrame, CancelFrame], [CancelFrame, EndFrame, EndFrame]],
    )
    async def test_the_call_is_ended_once(self, frames: list[type]) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        for frame in frames:
            assert await serializer.serialize(frame()) is None
        assert serializer.hung_up == [CALL["call_sid"]]
        assert serializer._hangup_attempted

    async def test_an_end_waits_until_the_last_words_were_played(self, clock) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        silence = bytes(160_000)  # 10 s, which do not count
        async with ending(serializer, speech(2400) + silence) as waiting:
            assert waiting.name == str(serializer)
            assert waiting.wait_secs() == pytest.approx(0.3)
            clock.now += 0.2
            assert waiting.wait_secs() == pytest.approx(0.1)
            clock.now += 0.1
            assert waiting.wait_secs() <= 1e-9
            assert not serializer.hung_up
        assert serializer.hung_up

    @pytest.mark.parametrize(
        ("params", "most_secs"),
        [
            (Subclass.InputParams(hang_up_drain_secs=0.05), 0.05),
            (Subclass.InputParams(), 2),
            (PipecatSerializer.InputParams(), 2),  # which lacks the field
        ],
    )
    async def test_the_wait_has_a_limit(self, params, most_secs: float, clock) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN, params=params)
        async with ending(serializer, MINUTE) as waiting:
            assert waiting.wait_secs() == pytest.approx(most_secs)
            clock.now += most_secs
            assert waiting.wait_secs() <= 1e-9

    @pytest.mark.parametrize("odd", [None, "2", -1, float("nan")])
    async def test_an_invalid_time_does_not_keep_the_call_open(self, odd, clock) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        serializer._params.hang_up_drain_secs = odd
        async with ending(serializer, MINUTE) as waiting:
            assert waiting.wait_secs() == pytest.approx(2)
        assert serializer.hung_up

    async def test_audio_goes_on_while_it_waits(self, clock) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        async with ending(serializer, speech(1600)) as waiting:
            assert await serializer.serialize(OutputAudioRawFrame(speech(800), 8000, 1)) is not None
            assert waiting.wait_secs() == pytest.approx(0.3)

    @pytest.mark.parametrize("frame", [CancelFrame, InterruptionFrame])
    async def test_a_cancel_or_an_interruption_cuts_the_wait_short(self, frame, clock) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        async with ending(serializer, MINUTE) as waiting:
            assert not waiting.hurried
            waiting.ending.set()
            await serializer.serialize(frame())
            assert waiting.hurried

    async def test_after_an_interruption_there_is_nothing_to_wait_for(self, clock) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        await serializer.serialize(OutputAudioRawFrame(MINUTE, 8000, 1))
        await serializer.serialize(InterruptionFrame())
        async with ending(serializer, b"") as waiting:
            assert waiting.wait_secs() <= 0

    async def test_with_the_real_one_the_last_words_are_waited_for(self) -> None:
        serializer = Subclass(STREAM_SID, **TOKEN)
        await serializer.serialize(OutputAudioRawFrame(speech(800), 8000, 1))
        task = asyncio.create_task(serializer.serialize(EndFrame()))
        await asyncio.sleep(0.01)
        assert not serializer.hung_up
        await task  # 0.1 s of speech
        assert serializer.hung_up

    @pytest.mark.parametrize(
        ("params", "most_secs"),
        [
            (Subclass.InputParams(hang_up_timeout_secs=7), 7),
            (Subclass.InputParams(), 5),
            (PipecatSerializer.InputParams(), 5),  # which lacks the field
        ],
    )
    async def test_the_request_has_a_time_limit(self, params, most_secs) -> None:
        outcome = Outcome(over=True, answer="200", attempts=1)
        with patch("pipecat_twilio.twilio.hangup.hang_up", AsyncMock(return_value=outcome)) as sent:
            await TwilioFrameSerializer(STREAM_SID, **TOKEN, params=params).serialize(EndFrame())
        assert sent.await_args.kwargs == {"timeout_secs": most_secs}
