"""The serializer, compared with Pipecat's own where the two must agree."""

import asyncio
import inspect
import json
import re
from contextlib import nullcontext
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
    TextFrame,
    TTSAudioRawFrame,
)
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from streams import CALL, CALL_SID, STREAM_SID, TOKEN, documented, media, payload_of, ready, speech

from pipecat_twilio import SincResampler, TwilioFrameSerializer, messages, ulaw

InputParams = TwilioFrameSerializer.InputParams
QUIET = InputParams(auto_hang_up=False)
START, STOP = documented("start"), documented("stop")
CLEAR = {"event": "clear", "streamSid": STREAM_SID}
NAN = float("nan")


class TestConstructor:
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
            (TOKEN, True),
            (TOKEN | {"region": "ie1", "edge": "dublin"}, True),
            (TOKEN | {"region": "ie1", "base_url": "https://api.example.com"}, True),
            *((arguments, False) for arguments in ({}, CALL, TOKEN | {"call_sid": ""})),
            (TOKEN | {"region": "ie1"}, False),
        ],
    )
    def test_it_takes_what_pipecats_takes_and_refuses_the_rest(self, arguments, is_valid) -> None:
        for kind in (PipecatSerializer, TwilioFrameSerializer):
            kind(STREAM_SID, **arguments, params=kind.InputParams(auto_hang_up=False))
            with nullcontext() if is_valid else pytest.raises(ValueError, match=r"auto_|region"):
                kind(STREAM_SID, **arguments)


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

    def test_a_callback_is_null_in_json_and_its_schema(self) -> None:
        for mode in ("validation", "serialization"):
            schema = InputParams.model_json_schema(mode=mode)
            assert schema["properties"]["on_call_report"]["type"] == "null"
        params = InputParams(on_call_report=print, sample_rate=8000)
        read = InputParams.model_validate_json(params.model_dump_json())
        assert read == InputParams(sample_rate=8000)
        assert params.model_dump()["on_call_report"] is print


class TestDeserialize:
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
            (media(bytes(8)), True),  # however short it is
            (media(bytes(160), track="outbound"), False),
            (media(bytes(160), track="outbound_track"), False),
            (media(bytes(160)), True),
            ('{"event": "media", "media": {"payload": "/w=="}}', True),
            (media(b""), False),
        ],
    )
    async def test_audio_is_the_callers_unless_it_is_of_the_bots_track(self, data, is_audio):
        assert (await (await ready()).deserialize(data) is not None) == is_audio

    @pytest.mark.parametrize("digit", [*"0123456789*#", "A", "D", "", "12", "x"])
    async def test_a_key_of_a_telephone_is_a_dtmf_frame_and_any_other_a_warning(self, digit, log):
        message = {"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": digit}}
        frame = await (await ready()).deserialize(json.dumps(message))
        if digit in [*"0123456789*#"]:
            assert type(frame) is InputDTMFFrame
            assert frame.button == KeypadEntry(digit)
        else:
            assert frame is None
            assert any(line.startswith("WARNING") and repr(digit) in line for line in log)

    @pytest.mark.parametrize(("gap_ms", "cleared"), [(200, False), (220, True), (-5000, False)])
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
    async def test_setup_refuses_an_impossible_rate_and_audio_before_it_is_a_warning(
        self, rate, log: list[str]
    ) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, params=QUIET)
        assert await serializer.deserialize(media(bytes(160))) is None
        assert "setup" in log[0]
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
    @pytest.mark.parametrize("start", [START, {"event": "start", "start": START["start"]}])
    async def test_its_stream_sid_is_taken_if_none_was_given(self, given, taken, start, log):
        serializer = TwilioFrameSerializer(given, **TOKEN)
        await serializer.deserialize(json.dumps(start))
        assert serializer._stream_sid == taken
        assert not log  # it is the same call

    async def test_another_calls_sid_is_warned_about_once_and_not_taken(self, log) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
        start = START | {"start": START["start"] | {"callSid": "\x1b[31m" + "x" * 100_000}}
        for _ in range(2):
            await serializer.deserialize(json.dumps(start))
        (line,) = log
        assert re.match("WARNING.*31mxxx", line)
        assert len(line) < 300
        assert line.rstrip("\n").isprintable()
        assert serializer._call_sid == CALL_SID

    async def test_without_a_stream_sid_messages_have_an_empty_one(self) -> None:
        serializer = TwilioFrameSerializer(None, params=QUIET)
        for frame in (OutputAudioRawFrame(bytes(640), 8000, 1), InterruptionFrame()):
            assert json.loads(await serializer.serialize(frame))["streamSid"] == ""


class TestSerialize:
    @pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
    @pytest.mark.parametrize("kind", [OutputAudioRawFrame, TTSAudioRawFrame, InputAudioRawFrame])
    async def test_40_ms_in_is_40_ms_out_of_the_same_call(self, rate: int, kind: Any) -> None:
        serializer = await ready()
        pcm, size, sent = speech(rate // 5), rate // 25 * 2, b""
        for i in range(5):
            frame = kind(pcm[size * i : size * (i + 1)], rate, 1)
            payload = payload_of(await serializer.serialize(frame))
            assert len(payload) == 320
            sent += payload
        assert sent == ulaw.encode(SincResampler(rate, 8000).process(pcm))

    @pytest.mark.parametrize("ignores", [True, False])
    async def test_the_text_is_pipecats_to_the_byte(self, ignores: bool) -> None:
        fields = {"ignore_rtvi_messages": ignores}
        params = PipecatSerializer.InputParams(auto_hang_up=False, **fields)
        ours, theirs = await ready(**fields), PipecatSerializer(STREAM_SID, params=params)
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

    async def test_a_message_that_is_not_json_is_dropped_with_an_error(self, log) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        endless: list[Any] = []
        endless.append(endless)
        serializer = await ready()
        for message in ({"a": object()}, {"a": NAN}, {b"a": 1}, {"a": deep}, {"a": endless}):
            assert await serializer.serialize(OutputTransportMessageFrame(message)) is None
        assert [line.startswith("ERROR") and "not JSON" in line for line in log] == [True] * 5

    @pytest.mark.parametrize("kind", [InterruptionFrame, type("Barging", (InterruptionFrame,), {})])
    async def test_an_interruption_clears_twilio_and_leaks_no_stale_audio(self, kind) -> None:
        serializer = await ready()
        await serializer.serialize(OutputAudioRawFrame(speech(640) + b"\x7f", 16000, 1))
        assert json.loads(await serializer.serialize(kind())) == CLEAR
        payload = payload_of(await serializer.serialize(OutputAudioRawFrame(bytes(1280), 16000, 1)))
        assert payload == b"\xff" * 320

    @pytest.mark.parametrize(("pause_secs", "kept"), [(0.09, True), (0.11, False)])
    async def test_a_pause_clears_the_filter_and_half_a_sample(self, clock, pause_secs, kept):
        serializer, pcm = await ready(resampler_clear_after_secs=0.1), speech(1280)
        first = await serializer.serialize(OutputAudioRawFrame(pcm[:1281], 16000, 1))
        clock.now += pause_secs
        await asyncio.sleep(0 if kept else pause_secs)  # the filter has a clock of its own
        second = await serializer.serialize(OutputAudioRawFrame(pcm[1281:-1], 16000, 1))
        if kept:
            sent, expected = payload_of(first) + payload_of(second), pcm[:-2]
        else:
            sent, expected = payload_of(second), pcm[1281:-1]
        assert sent == ulaw.encode(SincResampler(16000, 8000).process(expected))
