"""The serializer, compared with Pipecat's own where the two must agree."""

import asyncio
import inspect
import json
import tracemalloc
from types import SimpleNamespace
from typing import Any

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
from streams import (
    CALL,
    CALL_SID,
    STREAM_SID,
    TOKEN,
    documented,
    media,
    payload_of,
    ready,
    speech,
    traced,
)

from pipecat_twilio import MarkFrame, SincResampler, TwilioFrameSerializer, messages, ulaw

InputParams = TwilioFrameSerializer.InputParams
QUIET = InputParams(auto_hang_up=False)
START, STOP = documented("start"), documented("stop")
CLEAR = {"event": "clear", "streamSid": STREAM_SID}
BOTH = (PipecatSerializer, TwilioFrameSerializer)
NAN = float("nan")


class TestConstructor:
    """It takes and refuses the same arguments as Pipecat's own."""

    def test_signature_and_defaults_are_pipecats(self) -> None:
        ours, theirs = (
            [(p.name, p.kind, p.default) for p in inspect.signature(c).parameters.values()]
            for c in (TwilioFrameSerializer, PipecatSerializer)
        )
        assert theirs[:8] == ours[:8]
        assert {name for name, _, _ in ours} == {  # since 1.14 Pipecat has the last two as well
            *(name for name, _, _ in theirs),
            *("api_key_sid", "api_key_secret"),
        }
        theirs_params = PipecatSerializer.InputParams().model_dump()
        assert theirs_params.items() <= InputParams().model_dump().items()

    @pytest.mark.parametrize(
        ("arguments", "is_valid"),
        [
            *((TOKEN | more, True) for more in ({}, {"region": "ie1", "edge": "dublin"})),
            (TOKEN | {"region": "ie1", "base_url": "https://api.example.com"}, True),
            *((arguments, False) for arguments in ({}, {"call_sid": "CA1"}, CALL)),
            ({"account_sid": "AC1", "auth_token": "t"}, False),
            (TOKEN | {"call_sid": ""}, False),
            *((TOKEN | {name: "ie1"}, False) for name in ("region", "edge")),
        ],
    )
    def test_it_takes_what_pipecats_takes_and_refuses_the_rest(self, arguments, is_valid) -> None:
        for serializer in BOTH:
            serializer(STREAM_SID, **arguments, params=serializer.InputParams(auto_hang_up=False))
            if is_valid:
                assert serializer(STREAM_SID, **arguments)._call_sid == CALL_SID
                continue
            with pytest.raises(ValueError, match=r"auto_hang_up|auth_token|region"):
                serializer(STREAM_SID, **arguments)


class TestParams:
    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("resampler_clear_after_secs", [-1, -0.001, NAN]),
            ("input_frame_secs", [0.01, 0, 1.01, NAN]),
            ("max_message_bytes", [0]),
            ("on_call_report", [5]),
        ],
    )
    def test_a_value_out_of_range_is_refused_by_name(self, name: str, values: list[Any]) -> None:
        for value in values:
            with pytest.raises(ValueError, match=name):
                InputParams(**{name: value})

    @pytest.mark.parametrize("mode", ["validation", "serialization"])
    def test_they_have_a_json_schema_in_which_a_callback_is_null(self, mode) -> None:
        schema = InputParams.model_json_schema(mode=mode)
        assert schema["properties"]["on_call_report"]["type"] == "null"

    def test_they_can_be_written_as_json_with_a_callback_set(self) -> None:
        params = InputParams(on_call_report=print, sample_rate=8000)
        read = InputParams.model_validate_json(params.model_dump_json())
        assert read == InputParams(sample_rate=8000)
        assert params.model_dump()["on_call_report"] is print


class TestDeserialize:
    """From Twilio to the pipeline."""

    @pytest.mark.parametrize("rate", [8000, 16000, 24000, 22050])
    async def test_20_ms_in_is_20_ms_out_of_the_same_call(self, rate: int) -> None:
        serializer = await ready(rate)
        codes = np.random.default_rng(1).bytes(1600)
        heard = b""
        for i in range(10):
            frame = await serializer.deserialize(media(codes[160 * i :][:160], 20 * i))
            assert type(frame) is InputAudioRawFrame
            assert (frame.sample_rate, frame.num_channels) == (rate, 1)
            assert frame.num_frames == rate // 50
            heard += frame.audio
        assert heard == SincResampler(8000, rate).process(ulaw.decode(codes))

    @pytest.mark.parametrize(
        ("data", "is_audio"),
        [
            (media(bytes(160), track="outbound"), False),
            (media(bytes(160), track="outbound_track"), False),
            (media(bytes(160)), True),
            ('{"event": "media", "media": {"payload": "/w=="}}', True),
            (media(b""), False),
        ],
    )
    async def test_audio_is_the_callers_unless_it_is_of_the_bots_track(self, data, is_audio):
        assert (await (await ready()).deserialize(data) is not None) == is_audio

    @pytest.mark.parametrize("digit", "0123456789*#")
    async def test_digits_become_dtmf_frames(self, digit: str) -> None:
        frame = await (await ready()).deserialize(
            json.dumps({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": digit}})
        )
        assert type(frame) is InputDTMFFrame
        assert frame.button == KeypadEntry(digit)

    @pytest.mark.parametrize("digit", ["A", "D", "", "12", "x"])
    async def test_other_digits_are_dropped_with_a_warning(self, digit: str, log) -> None:
        message = json.dumps({"event": "dtmf", "dtmf": {"digit": digit}})
        assert await (await ready()).deserialize(message) is None
        assert any(line.startswith("WARNING") and repr(digit) in line for line in log)

    async def test_audio_before_setup_is_dropped_with_a_warning(self, log: list[str]) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, params=QUIET)
        assert await serializer.deserialize(media(bytes(160))) is None
        assert "setup" in log[0]

    @pytest.mark.parametrize(
        ("gap_ms", "cleared"), [(20, False), (200, False), (220, True), (0, False), (-5000, False)]
    )
    async def test_a_pause_is_measured_on_the_streams_own_clock(self, gap_ms, cleared) -> None:
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


class TestInputFrames:
    """`input_frame_secs`: fewer, longer frames."""

    @pytest.mark.parametrize(("secs", "count"), [(0.02, 1), (0.021, 2), (0.04, 2), (0.05, 3)])
    @pytest.mark.parametrize("rate", [8000, 22050])
    async def test_audio_is_collected_to_frames_of_at_least_that(self, secs, count, rate) -> None:
        serializer = await ready(rate, input_frame_secs=secs)
        codes = np.random.default_rng(1).bytes(160 * 12)
        frames = [
            await serializer.deserialize(media(codes[160 * i :][:160], 20 * i)) for i in range(12)
        ]
        assert [f is not None for f in frames] == [(i + 1) % count == 0 for i in range(12)]
        audio = b"".join(frame.audio for frame in frames if frame)
        assert audio == SincResampler(8000, rate).process(ulaw.decode(codes))

    async def test_a_message_of_less_than_20_ms_is_a_frame_by_default(self) -> None:
        assert (await (await ready(16000)).deserialize(media(bytes(80)))).num_frames == 160

    async def test_audio_collected_before_a_stop_is_not_lost(self) -> None:
        serializer = await ready(16000, input_frame_secs=0.06)
        assert await serializer.deserialize(media(bytes(160))) is None
        assert (await serializer.deserialize(json.dumps(STOP))).num_frames == 320
        assert await serializer.deserialize(json.dumps(STOP)) is None


class TestTheStart:
    """What the serializer takes from the `start` message, if it sees it."""

    @pytest.mark.parametrize(
        ("given", "taken"), [("", STREAM_SID), (None, STREAM_SID), ("MZ1", "MZ1")]
    )
    @pytest.mark.parametrize(
        "start", [START, START | {"start": None}, {"event": "start", "start": START["start"]}]
    )
    async def test_its_stream_sid_is_taken_if_none_was_given(self, given, taken, start, log):
        serializer = TwilioFrameSerializer(given, **TOKEN)
        await serializer.deserialize(json.dumps(start))
        assert serializer._stream_sid == taken
        assert not log  # it is the same call, or says nothing of it

    @pytest.mark.parametrize("sid", ["CA" + "3" * 32, "\x1b[31m" + "x" * 100_000])
    async def test_another_calls_sid_is_warned_about_once_and_not_taken(self, sid, log) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
        start = START | {"start": START["start"] | {"callSid": sid}}
        for _ in range(2):
            await serializer.deserialize(json.dumps(start))
        (line,) = log
        assert line.startswith("WARNING")
        assert sid[5:50] in line
        assert len(line) < 300
        assert line.rstrip("\n").isprintable()
        assert serializer._call_sid == CALL_SID

    async def test_without_a_stream_sid_messages_have_an_empty_one(self) -> None:
        serializer = TwilioFrameSerializer(None, params=QUIET)
        for frame in (OutputAudioRawFrame(bytes(640), 8000, 1), InterruptionFrame()):
            assert json.loads(await serializer.serialize(frame))["streamSid"] == ""


class TestSerialize:
    """From the pipeline to Twilio."""

    @pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
    async def test_40_ms_in_is_40_ms_out_of_the_same_call(self, rate: int) -> None:
        serializer = await ready()
        pcm, size, sent = speech(rate // 5), rate // 25 * 2, b""
        for i in range(5):
            frame = OutputAudioRawFrame(pcm[size * i : size * (i + 1)], rate, 1)
            payload = payload_of(await serializer.serialize(frame))
            assert len(payload) == 320
            sent += payload
        assert sent == ulaw.encode(SincResampler(rate, 8000).process(pcm))

    async def test_the_text_is_pipecats_to_the_byte(self) -> None:
        params = PipecatSerializer.InputParams(auto_hang_up=False)
        ours, theirs = await ready(), PipecatSerializer(STREAM_SID, params=params)
        # From -4 down the two encoders differ, as G.711 has it.
        pcm = np.abs(np.frombuffer(speech(320), "<i2")).tobytes()
        for frame in (
            OutputAudioRawFrame(pcm, 8000, 1),
            InterruptionFrame(),
            OutputTransportMessageFrame(messages.mark(STREAM_SID, "é")),
            OutputTransportMessageUrgentFrame({"a": [1, 2.5, None]}),
            OutputTransportMessageFrame({"label": "rtvi-ai", "type": "bot-ready"}),
            TextFrame("hello"),
            OutputAudioRawFrame(b"", 8000, 1),
            EndFrame(),
            CancelFrame(),
        ):
            assert await ours.serialize(frame) == await theirs.serialize(frame)

    async def test_rtvi_messages_pass_when_they_are_not_to_be_ignored(self) -> None:
        serializer = await ready(ignore_rtvi_messages=False)
        message = {"label": "rtvi-ai", "type": "bot-ready"}
        text = await serializer.serialize(OutputTransportMessageFrame(message))
        assert json.loads(text) == message

    async def test_a_message_that_is_not_json_is_dropped_with_an_error(self, log) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        endless: list[Any] = []
        endless.append(endless)
        serializer = await ready()
        for message in ({"a": object()}, {"a": NAN}, {b"a": 1}, {1, 2}, deep, endless):
            assert await serializer.serialize(OutputTransportMessageFrame(message)) is None
        assert [line.startswith("ERROR") and "not JSON" in line for line in log] == [True] * 6

    async def test_a_pause_clears_the_filter(self) -> None:
        serializer = await ready(resampler_clear_after_secs=0.01)
        await serializer.serialize(OutputAudioRawFrame(speech(640), 16000, 1))
        await asyncio.sleep(0.02)
        text = await serializer.serialize(OutputAudioRawFrame(speech(640, seed=2), 16000, 1))
        expected = SincResampler(16000, 8000).process(speech(640, seed=2))
        assert payload_of(text) == ulaw.encode(expected)

    @pytest.mark.parametrize("kind", [TTSAudioRawFrame, InputAudioRawFrame])
    async def test_every_kind_of_audio_frame_is_audio(self, kind: type) -> None:
        frame = kind(audio=speech(320), sample_rate=8000, num_channels=1)
        assert payload_of(await (await ready()).serialize(frame)) == ulaw.encode(speech(320))

    @pytest.mark.parametrize("kind", [InterruptionFrame, type("Barging", (InterruptionFrame,), {})])
    async def test_an_interruption_clears_twilio_and_leaks_no_stale_audio(self, kind) -> None:
        serializer = await ready()
        await serializer.serialize(OutputAudioRawFrame(speech(640) + b"\x7f", 16000, 1))
        assert json.loads(await serializer.serialize(kind())) == CLEAR
        payload = payload_of(await serializer.serialize(OutputAudioRawFrame(bytes(1280), 16000, 1)))
        assert payload == b"\xff" * 320

    @pytest.mark.parametrize(("pause_secs", "kept"), [(0.19, True), (0.21, False)])
    async def test_half_a_sample_is_forgotten_after_a_pause(self, clock, pause_secs, kept) -> None:
        serializer, pcm = await ready(), speech(640)
        await serializer.serialize(OutputAudioRawFrame(pcm[:641], 8000, 1))
        clock.now += pause_secs
        text = await serializer.serialize(OutputAudioRawFrame(pcm[641:-1], 8000, 1))
        assert payload_of(text) == ulaw.encode(pcm[640:-2] if kept else pcm[641:-1])


class TestMarks:
    """What a mark that comes back says."""

    async def test_it_is_a_system_frame_with_the_marks_name(self) -> None:
        message = messages.mark(STREAM_SID, "greeting") | {"sequenceNumber": "4"}
        frame = await (await ready()).deserialize(json.dumps(message))
        assert type(frame) is MarkFrame
        assert isinstance(frame, SystemFrame)
        assert (frame.name, frame.stream_sid, frame.cleared) == ("greeting", STREAM_SID, False)
        assert str(frame).startswith("MarkFrame#")
        assert str(frame).endswith("('greeting', cleared: False)")
        assert (MarkFrame("a").stream_sid, MarkFrame("a").cleared) == ("", False)

    @pytest.mark.parametrize(
        "frame_class", [OutputTransportMessageFrame, OutputTransportMessageUrgentFrame]
    )
    @pytest.mark.parametrize("clear", [InterruptionFrame(), CLEAR])
    async def test_only_what_was_not_played_at_an_interruption_is_cleared(
        self, frame_class, clear, clock
    ) -> None:
        serializer = await ready()
        for name in ("heard", "cut", ""):
            await serializer.serialize(OutputAudioRawFrame(speech(8000), 8000, 1))
            await serializer.serialize(frame_class(messages.mark(STREAM_SID, name)))
        clock.now += 1.1
        await serializer.serialize(frame_class(clear) if clear is CLEAR else clear)
        assert serializer.unplayed_secs() == 0
        await serializer.serialize(frame_class(messages.mark(STREAM_SID, "cut")))
        for name, cleared in (("heard", False), ("cut", True), ("", True), ("cut", False)):
            frame = await serializer.deserialize(json.dumps(messages.mark(STREAM_SID, name)))
            assert (frame.name, frame.cleared) == (name, cleared)


class TestOddAudioFrames:
    """Frames whose fields have wrong types or values."""

    @staticmethod
    def frame(audio: Any = bytes(640), rate: Any = 16000, channels: Any = 1) -> OutputAudioRawFrame:
        frame = OutputAudioRawFrame(b"", 16000, 1)
        frame.audio, frame.sample_rate, frame.num_channels = audio, rate, channels
        return frame

    async def test_buffers_and_whole_numbers_of_any_type_are_taken(self) -> None:
        frame = self.frame(np.frombuffer(speech(320), "<i2"), np.int64(16000), 1.0)
        text = await (await ready()).serialize(frame)
        assert payload_of(text) == ulaw.encode(SincResampler(16000, 8000).process(speech(320)))

    @pytest.mark.parametrize(
        "fields",
        [
            *({"rate": rate} for rate in (10**400, None, 16000.5, "16000", -1, 0, NAN)),
            *({"channels": odd} for odd in (None, 1.5, "2", 0, -1, float("inf"), 65, 2**40)),
            *({"audio": audio} for audio in (None, 5, "text", [0, 1])),
            {"audio": np.zeros(320, np.float32)},
        ],
    )
    async def test_any_other_value_is_dropped_with_a_warning(self, fields, log: list[str]) -> None:
        serializer = await ready()
        with traced():
            assert await serializer.serialize(self.frame(**fields)) is None
            assert tracemalloc.get_traced_memory()[1] < 100_000
        assert [line.split()[0] for line in log] == ["WARNING"]
        assert len(log[0]) < 300
        for name, fault in (("rate", "_rate must be"), ("channels", "num_channels must be")):
            assert (fault in log[0]) == (name in fields)
        assert await serializer.serialize(self.frame()) is not None

    @pytest.mark.parametrize(
        ("rate", "samples", "channels"), [(250, 150_001, 1), (400, 240_001, 1), (250, 150_001, 2)]
    )
    async def test_more_audio_than_twilio_buffers_is_dropped_with_a_warning(
        self, rate: int, samples: int, channels: int, log: list[str]
    ) -> None:
        # At 250 Hz a few MiB would become hundreds.
        serializer = await ready()
        assert (
            await serializer.serialize(self.frame(bytes(2 * samples * channels), rate, channels))
            is None
        )
        max_bytes = 1200 * rate * channels
        assert f"at most {max_bytes} bytes" in log[0]
        assert await serializer.serialize(self.frame(bytes(max_bytes), rate, channels)) is not None
