"""What public bots, providers and frameworks do with Pipecat's class: a test for each pattern.

If Pipecat's own class has the behaviour, each test runs on that class first, and then on ours.
"""

import asyncio
import inspect
import json
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, patch

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from streams import (
    ACCOUNT_SID,
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

from pipecat_twilio import (
    MarkFrame,
    SincResampler,
    SincStreamResampler,
    TwilioFrameSerializer,
    messages,
    ulaw,
)

OTHER_CALL_SID = "CA" + "3" * 32
START, STOP = documented("start"), documented("stop")

# The newest aiohttp warns of what Pipecat's own class does.
pytestmark = pytest.mark.filterwarnings("ignore:.*(BasicAuth|'auth').*:DeprecationWarning")

both = pytest.mark.parametrize("serializer_class", [PipecatSerializer, TwilioFrameSerializer])


@pytest.fixture
async def api() -> AsyncIterator[SimpleNamespace]:
    """A loopback stand-in for the REST API, which counts what it was asked to end."""
    api = SimpleNamespace(ended=Counter(), logins=set())

    async def update(request: web.Request) -> web.Response:
        api.ended[request.path] += 1
        api.logins.add(request.headers["Authorization"])
        return web.json_response({"status": "completed"})

    app = web.Application()
    app.router.add_post("/{path:.*}", update)
    async with TestServer(app) as server:
        api.base_url = str(server.make_url("")).rstrip("/")
        yield api


def path_of(call_sid: str, account_sid: str = ACCOUNT_SID) -> str:
    return f"/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"


def quiet(serializer_class: type, **arguments: Any) -> Any:
    params = serializer_class.InputParams(auto_hang_up=False)
    return serializer_class(STREAM_SID, params=params, **arguments)


class TestWhatIsNeededAtHangUp:
    """Private attributes may be assigned at any time; they are read when the call is ended."""

    @both
    async def test_the_call_sid_may_come_with_the_start_message(
        self, serializer_class, api
    ) -> None:
        serializer = serializer_class(
            "pending", **{**TOKEN, "call_sid": "pending"}, base_url=api.base_url
        )
        serializer._stream_sid, serializer._call_sid = STREAM_SID, CALL_SID
        await serializer.serialize(EndFrame())
        assert api.ended == {path_of(CALL_SID): 1}

    @both
    async def test_account_token_and_base_url_may_be_assigned_later(
        self, serializer_class, api
    ) -> None:
        serializer = quiet(serializer_class)
        serializer._account_sid = "AC" + "4" * 32
        serializer._call_sid = CALL_SID
        serializer._auth_token = "another"
        serializer._base_url = api.base_url
        serializer._params.auto_hang_up = True
        await serializer.serialize(CancelFrame())
        assert api.ended == {path_of(CALL_SID, "AC" + "4" * 32): 1}

    @pytest.mark.parametrize(
        "serializer_class",
        [PipecatSerializer] * ("api_key_sid" in inspect.signature(PipecatSerializer).parameters)
        + [TwilioFrameSerializer],
    )
    async def test_an_api_key_may_take_the_place_of_a_token(self, serializer_class, api) -> None:
        serializer = serializer_class(STREAM_SID, **TOKEN, base_url=api.base_url)
        serializer._auth_token = None
        serializer._api_key_sid, serializer._api_key_secret = "SK1", "secret"
        await serializer.serialize(EndFrame())
        assert api.logins == {"Basic U0sxOnNlY3JldA=="}

    async def test_region_and_edge_make_the_address(self) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
        serializer._region, serializer._edge = "ie1", "dublin"
        assert serializer._call_resource().url == (
            "https://api.dublin.ie1.twilio.com" + path_of(CALL_SID)
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("_call_sid", "CA1/../x"),
            ("_call_sid", None),
            ("_call_sid", 5),
            ("_account_sid", ""),
            ("_auth_token", None),
            ("_region", "ie1"),
            ("_base_url", "ftp://example.com"),
        ],
    )
    async def test_an_invalid_value_is_an_error_in_the_log_and_no_request_is_made(
        self, name: str, value: Any, log: list[str]
    ) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
        setattr(serializer, name, value)
        with patch("pipecat_twilio.twilio.hangup.hang_up", AsyncMock()) as request:
            assert await serializer.serialize(EndFrame()) is None
        request.assert_not_awaited()
        errors = [line for line in log if line.startswith("ERROR")]
        assert len(errors) == 1
        assert "left the call open" in errors[0]
        assert name[1:] in errors[0]
        assert "token" not in errors[0].replace("auth_token", "").replace("AUTH_TOKEN", "")

    @both
    @pytest.mark.parametrize("attempted", [True, False])
    async def test_a_bot_that_ended_the_call_itself_can_say_so(
        self, serializer_class, attempted: bool, api
    ) -> None:
        serializer = serializer_class(STREAM_SID, **TOKEN, base_url=api.base_url)
        serializer._hangup_attempted = attempted
        await serializer.serialize(EndFrame())
        assert api.ended.total() == (not attempted)

    @both
    @pytest.mark.parametrize("whole", [True, False])
    async def test_auto_hang_up_may_be_switched_off_later(
        self, serializer_class, whole: bool, api
    ) -> None:
        serializer = serializer_class(STREAM_SID, **TOKEN, base_url=api.base_url)
        if whole:
            serializer._params = serializer_class.InputParams(auto_hang_up=False)
        else:
            serializer._params.auto_hang_up = False
        await serializer.serialize(EndFrame())
        assert not api.ended

    @both
    async def test_hang_up_may_be_called_by_name(self, serializer_class, api) -> None:
        serializer = quiet(serializer_class, **TOKEN, base_url=api.base_url)
        await serializer._hang_up_call()
        assert api.ended == {path_of(CALL_SID): 1}

    @both
    async def test_hang_up_may_be_replaced_on_class_and_object(self, serializer_class) -> None:
        with patch.object(serializer_class, "_hang_up_call", AsyncMock()) as hang_up:
            await serializer_class(STREAM_SID, **TOKEN).serialize(EndFrame())
        hang_up.assert_awaited_once()
        serializer = serializer_class(STREAM_SID, **TOKEN)
        serializer._hang_up_call = hang_up = AsyncMock()
        await serializer.serialize(EndFrame())
        hang_up.assert_awaited_once()


class TestRatesAndResamplers:
    """Private attributes that change the conversion of audio."""

    async def test_all_private_names_are_there_with_the_same_values(self) -> None:
        arguments = {**TOKEN, "region": "ie1", "edge": "dublin"}
        ours, theirs = (quiet(c, **arguments) for c in (TwilioFrameSerializer, PipecatSerializer))
        for serializer in (ours, theirs):
            await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        for name, value in vars(theirs).items():
            same = getattr(ours, name)
            if name not in ("_id", "_name") and isinstance(value, str | int | None):
                assert same == value, name
            setattr(ours, name, same)
        for resampler in (ours._input_resampler, ours._output_resampler):
            assert len(await resampler.resample(bytes(320), 8000, 8000)) == 320

    @both
    async def test_frames_have_a_sample_rate_that_was_assigned_without_setup(
        self, serializer_class
    ) -> None:
        serializer = quiet(serializer_class)
        serializer._sample_rate = 24000
        frames = [await serializer.deserialize(media(bytes(800), 100 * i)) for i in range(5)]
        frame = [frame for frame in frames if frame is not None][-1]
        assert frame.sample_rate == 24000

    async def test_after_a_rate_is_assigned_the_audio_has_that_rate(self) -> None:
        serializer = await ready(16000)
        codes = ulaw.encode(speech(160))
        await serializer.deserialize(media(codes, 0))
        serializer._sample_rate = 24000
        frame = await serializer.deserialize(media(codes, 20))
        assert frame.sample_rate == 24000
        assert frame.audio == SincResampler(8000, 24000).process(ulaw.decode(codes))
        assert frame.num_frames == 480

    @pytest.mark.parametrize("rate", ["fast", None, -1, 10**400, 1.5])
    async def test_an_impossible_sample_rate_is_a_warning(self, rate, log: list[str]) -> None:
        serializer = await ready(16000)
        serializer._sample_rate = rate
        assert await serializer.deserialize(media(bytes(160))) is None
        assert log[0].startswith("WARNING")

    @both
    async def test_an_assigned_twilio_sample_rate_is_used(self, serializer_class) -> None:
        serializer = quiet(serializer_class)
        serializer._twilio_sample_rate = serializer._sample_rate = 16000
        frame = await serializer.deserialize(media(bytes(320)))
        assert (frame.sample_rate, frame.num_frames) == (16000, 320)
        text = await serializer.serialize(OutputAudioRawFrame(bytes(640), 16000, 1))
        assert len(payload_of(text)) == 320

    @both
    async def test_an_assigned_resampler_is_used(self, serializer_class) -> None:
        rates: list[tuple[int, int]] = []

        class Doubling:
            async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
                rates.append((in_rate, out_rate))
                return np.repeat(np.frombuffer(audio, "<i2"), 2).tobytes()

        serializer = quiet(serializer_class)
        serializer._sample_rate = 16000
        serializer._input_resampler = serializer._output_resampler = Doubling()
        frame = await serializer.deserialize(media(ulaw.encode(speech(160))))
        samples = np.frombuffer(frame.audio, "<i2")
        np.testing.assert_array_equal(samples[::2], samples[1::2])
        text = await serializer.serialize(OutputAudioRawFrame(bytes(160), 4000, 1))
        assert len(payload_of(text)) == 160
        assert rates == [(8000, 16000), (4000, 8000)]
        assert json.loads(await serializer.serialize(InterruptionFrame()))["event"] == "clear"

    @both
    async def test_the_resample_method_of_ours_may_be_replaced(self, serializer_class) -> None:
        serializer = quiet(serializer_class)
        serializer._sample_rate = 16000
        serializer._input_resampler.resample = AsyncMock(return_value=bytes(640))
        serializer._output_resampler.resample = AsyncMock(return_value=bytes(320))
        frame = await serializer.deserialize(media(ulaw.encode(speech(160))))
        assert frame.audio == bytes(640)
        text = await serializer.serialize(OutputAudioRawFrame(speech(320), 16000, 1))
        assert payload_of(text) == b"\xff" * 160
        serializer._input_resampler.resample.assert_awaited_once()

    async def test_a_failing_resampler_costs_a_frame_and_a_short_warning(self, log) -> None:
        serializer = await ready()
        serializer._input_resampler = serializer._output_resampler = AsyncMock()
        serializer._input_resampler.resample.side_effect = RuntimeError("out of order" * 1000)
        assert await serializer.deserialize(media(bytes(160))) is None
        assert await serializer.serialize(OutputAudioRawFrame(bytes(320), 16000, 1)) is None
        assert len(log) == 2
        for line in log:
            assert line.startswith("WARNING")
            assert "RuntimeError: out of order" in line
            assert len(line) < 300

    async def test_an_interruption_gets_through_whatever_the_resamplers_reset_does(self) -> None:
        class Odd:
            resample = AsyncMock(return_value=b"")

            def reset(self) -> None:
                """Does nothing; it is not a coroutine function."""

        serializer = await ready()
        serializer._output_resampler = Odd()
        text = await serializer.serialize(InterruptionFrame())
        assert json.loads(text)["event"] == "clear"
        assert serializer.call_report.interruptions == 1

    async def test_a_subclass_of_our_resampler_is_asked_as_pipecat_asks(self) -> None:
        class Silent(SincStreamResampler):
            async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
                return bytes(len(await super().resample(audio, in_rate, out_rate)))

        serializer = await ready()
        serializer._input_resampler = serializer._output_resampler = Silent()
        frame = await serializer.deserialize(media(ulaw.encode(speech(160))))
        assert frame.audio == bytes(640)
        text = await serializer.serialize(OutputAudioRawFrame(speech(320), 16000, 1))
        assert payload_of(text) == b"\xff" * 160


class SkipsTheConstructor(TwilioFrameSerializer):
    """Sets its own attributes only, as one public provider does."""

    def __init__(self, stream_sid: str) -> None:
        FrameSerializer.__init__(self, self.InputParams())
        self._stream_sid = stream_sid


class SkipsEveryConstructor(TwilioFrameSerializer):
    """Sets nothing."""

    def __init__(self) -> None:
        pass


class TestSubclasses:
    """Subclasses of several kinds, and params of several kinds."""

    @pytest.mark.parametrize(
        "made", [lambda: SkipsTheConstructor(STREAM_SID), SkipsEveryConstructor]
    )
    async def test_a_subclass_may_skip_the_constructor(self, made, log: list[str]) -> None:
        serializer = made()
        assert serializer._params.auto_hang_up
        assert await serializer.deserialize("{") is None
        assert await serializer.deserialize(json.dumps(START)) is None
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        frame = await serializer.deserialize(media(bytes(160)))
        assert (frame.sample_rate, frame.num_frames) == (16000, 320)
        assert (
            len(payload_of(await serializer.serialize(OutputAudioRawFrame(bytes(640), 16000, 1))))
            == 160
        )
        clear = {"event": "clear", "streamSid": STREAM_SID}
        assert json.loads(await serializer.serialize(InterruptionFrame())) == clear
        assert await serializer.serialize(EndFrame()) is None
        # "{", no credentials, and the report.
        assert [line.split()[0] for line in log] == ["WARNING", "ERROR", "INFO"]

    @both
    async def test_a_subclass_may_note_a_hang_up_before_it_is_made(
        self, serializer_class, api
    ) -> None:
        noted: list[int] = []

        class Noting(serializer_class):
            async def _hang_up_call(self) -> None:
                noted.append(api.ended.total())
                await super()._hang_up_call()

        await Noting(STREAM_SID, **TOKEN, base_url=api.base_url).serialize(EndFrame())
        assert noted == [0]
        assert api.ended == {path_of(CALL_SID): 1}

    @both
    async def test_a_subclass_may_have_a_hand_off_of_its_own_and_take_it_back(
        self, serializer_class, api
    ) -> None:
        class HandsOff(serializer_class):
            away = False

            def hand_off(self) -> None:
                self.away = True

            async def serialize(self, frame):
                if self.away and isinstance(frame, EndFrame | CancelFrame):
                    return None
                return await super().serialize(frame)

        serializer = HandsOff(STREAM_SID, **TOKEN, base_url=api.base_url)
        serializer.hand_off()
        await serializer.serialize(EndFrame())
        assert not api.ended
        serializer.away = False
        await serializer.serialize(CancelFrame())
        assert api.ended == {path_of(CALL_SID): 1}

    @both
    async def test_a_plain_function_may_read_the_start_message_and_pass_it_on(
        self, serializer_class
    ) -> None:
        class ReadsStart(serializer_class):
            def deserialize(self, data):
                message = json.loads(data)
                if message["event"] == "start":
                    self._stream_sid = message["start"]["streamSid"]
                    self._call_sid = message["start"]["callSid"]
                return super().deserialize(data)

        params = serializer_class.InputParams(auto_hang_up=False)
        serializer = ReadsStart("", params=params)
        assert await serializer.deserialize(json.dumps(START)) is None
        assert serializer._call_sid == CALL_SID
        clear = {"event": "clear", "streamSid": STREAM_SID}
        assert json.loads(await serializer.serialize(InterruptionFrame())) == clear

    async def test_params_may_be_any_object(self) -> None:
        class OnTheClass:
            auto_hang_up = False
            resampler_clear_after_secs = None

            @property
            def sample_rate(self) -> int:
                return 24000

        class Slots:
            __slots__ = ("auto_hang_up",)

        slots = Slots()
        slots.auto_hang_up = False
        for params, rate in ((OnTheClass(), 24000), (slots, 16000)):
            serializer = TwilioFrameSerializer(STREAM_SID, params=params)
            await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
            assert (await serializer.deserialize(media(bytes(160)))).sample_rate == rate
            assert await serializer.serialize(EndFrame()) is None

    async def test_base_params_without_any_of_twilios_fields_will_do(self) -> None:
        serializer = TwilioFrameSerializer(
            STREAM_SID, **TOKEN, params=FrameSerializer.InputParams()
        )
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        assert (await serializer.deserialize(media(bytes(160)))).num_frames == 320
        with patch.object(serializer, "_hang_up_call", AsyncMock()) as hang_up:
            await serializer.serialize(EndFrame())
        hang_up.assert_awaited_once()


@pytest.mark.parametrize(("pause_secs", "kept"), [(0.19, True), (0.21, False)])
async def test_the_half_of_a_sample_is_forgotten_after_a_pause(clock, pause_secs, kept) -> None:
    # After an interruption and at a new format too: test_properties.py has those.
    serializer, pcm = await ready(), speech(640)
    await serializer.serialize(OutputAudioRawFrame(pcm[:641], 8000, 1))
    clock.now += pause_secs
    text = await serializer.serialize(OutputAudioRawFrame(pcm[641:], 8000, 1))
    assert payload_of(text) == ulaw.encode(pcm[640:] if kept else pcm[641:-1])


class TestMarks:
    """What a mark that comes back says."""

    async def returned(self, serializer: TwilioFrameSerializer, name: str) -> MarkFrame:
        frame = await serializer.deserialize(json.dumps(messages.mark(STREAM_SID, name)))
        assert isinstance(frame, MarkFrame)
        assert frame.name == name
        return frame

    @pytest.mark.parametrize(
        "frame_class", [OutputTransportMessageFrame, OutputTransportMessageUrgentFrame]
    )
    async def test_a_mark_before_an_interruption_was_cut_off(self, frame_class) -> None:
        serializer = await ready()
        for name in ("heard", "cut", "cut", ""):
            await serializer.serialize(frame_class(messages.mark(STREAM_SID, name)))
        assert not (await self.returned(serializer, "heard")).cleared
        await serializer.serialize(InterruptionFrame())
        await serializer.serialize(frame_class(messages.mark(STREAM_SID, "cut")))
        cleared = [(await self.returned(serializer, "cut")).cleared for _ in range(3)]
        assert cleared == [True, True, False]
        assert (await self.returned(serializer, "")).cleared

    async def test_a_clear_that_the_bot_sends_itself_counts_as_one(self) -> None:
        serializer = await ready()
        await serializer.serialize(OutputAudioRawFrame(speech(8000), 8000, 1))
        await serializer.serialize(OutputTransportMessageFrame(messages.mark(STREAM_SID, "cut")))
        clear = {"event": "clear", "streamSid": STREAM_SID}
        await serializer.serialize(OutputTransportMessageUrgentFrame(clear))
        assert serializer.unplayed_secs() == 0
        assert (await self.returned(serializer, "cut")).cleared

    async def test_pipecats_rtvi_processor_takes_it_without_a_warning(self, log) -> None:
        from pipecat.processors.frameworks.rtvi import RTVIProcessor
        from pipecat.tests.utils import run_test

        await run_test(RTVIProcessor(), frames_to_send=[MarkFrame("a")])
        assert not [line for line in log if line.startswith("WARNING")]


class TestTheStart:
    """What the serializer takes from the `start` message, if it sees it."""

    @pytest.mark.parametrize("empty", ["", None])
    async def test_an_empty_stream_sid_is_taken_from_it(self, empty) -> None:
        serializer = TwilioFrameSerializer(empty, **TOKEN)
        await serializer.deserialize(json.dumps(START))
        assert serializer._stream_sid == STREAM_SID

    async def test_a_given_stream_sid_is_never_replaced(self, log: list[str]) -> None:
        serializer = TwilioFrameSerializer("MZ1", **TOKEN)
        await serializer.deserialize(json.dumps(START))
        assert serializer._stream_sid == "MZ1"
        assert not log  # it is the same call

    async def test_another_call_than_the_given_one_is_warned_about_once(
        self, api, log: list[str]
    ) -> None:
        arguments = {**TOKEN, "call_sid": OTHER_CALL_SID}
        serializer = TwilioFrameSerializer(STREAM_SID, **arguments, base_url=api.base_url)
        for _ in range(2):
            await serializer.deserialize(json.dumps(START))
        assert [line.split()[0] for line in log] == ["WARNING"]
        assert CALL_SID in log[0]
        await serializer.serialize(EndFrame())
        assert api.ended == {path_of(OTHER_CALL_SID): 1}

    async def test_the_warning_quotes_a_short_excerpt_of_a_hostile_call_sid(self, log) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
        start = START["start"] | {"callSid": "\x1b[31m" + "x" * 100_000}
        await serializer.deserialize(json.dumps(START | {"start": start}))
        (line,) = log
        assert len(line) < 300
        assert line.rstrip("\n").isprintable()


class TestACallThatMovesOn:
    """The call was left to somebody else, so it must not be ended."""

    @pytest.mark.parametrize("why", ["stop", "hand_off()"])
    @pytest.mark.parametrize("frame", [EndFrame, CancelFrame])
    async def test_a_call_that_was_left_is_neither_ended_nor_waited_for(
        self, why: str, frame, api, log
    ) -> None:
        params = TwilioFrameSerializer.InputParams(hang_up_drain_secs=60)
        serializer = TwilioFrameSerializer(
            STREAM_SID, **TOKEN, params=params, base_url=api.base_url
        )
        await serializer.serialize(OutputAudioRawFrame(speech(80_000), 8000, 1))
        if why == "stop":
            await serializer.deserialize(json.dumps(STOP))
        else:
            serializer.hand_off()
        await asyncio.wait_for(serializer.serialize(frame()), 5)
        await serializer.serialize(CancelFrame())
        assert not api.ended
        assert f"does not end the call: {why}" in log[0]
        assert serializer.call_report.ended_by == why
        assert serializer.call_report.rest_answer == ""

    async def test_a_hand_off_while_the_last_words_are_played_is_in_time(self, api) -> None:
        params = TwilioFrameSerializer.InputParams(hang_up_drain_secs=60)
        serializer = TwilioFrameSerializer(
            STREAM_SID, **TOKEN, params=params, base_url=api.base_url
        )
        await serializer.serialize(OutputAudioRawFrame(speech(480_000), 8000, 1))
        end = asyncio.create_task(serializer.serialize(EndFrame()))
        await asyncio.sleep(0)
        serializer.hand_off()
        await asyncio.wait_for(end, 5)  # not 60
        assert not api.ended


class TestInputFrames:
    """`input_frame_secs`: fewer, longer frames."""

    @pytest.mark.parametrize(("secs", "messages"), [(0.02, 1), (0.021, 2), (0.04, 2), (0.05, 3)])
    @pytest.mark.parametrize("rate", [8000, 16000, 22050])
    async def test_audio_is_collected_to_frames_of_at_least_that(
        self, secs, messages, rate
    ) -> None:
        serializer = await ready(rate, input_frame_secs=secs)
        codes = np.random.default_rng(1).bytes(160 * 12)
        frames = [
            await serializer.deserialize(media(codes[160 * i :][:160], 20 * i)) for i in range(12)
        ]
        assert [frame is not None for frame in frames] == [
            (i + 1) % messages == 0 for i in range(12)
        ]
        audio = b"".join(frame.audio for frame in frames if frame)
        assert audio == SincResampler(8000, rate).process(ulaw.decode(codes))

    async def test_a_message_of_less_than_20_ms_is_a_frame_by_default(self) -> None:
        assert (await (await ready(16000)).deserialize(media(bytes(80)))).num_frames == 160

    async def test_audio_collected_before_the_stream_stops_is_not_lost(self) -> None:
        serializer = await ready(16000, input_frame_secs=0.06)
        assert await serializer.deserialize(media(bytes(160))) is None
        assert (await serializer.deserialize(json.dumps(STOP))).num_frames == 320
        assert await serializer.deserialize(json.dumps(STOP)) is None

    @pytest.mark.parametrize("secs", [0.01, 0, -1, 1.01, float("nan")])
    def test_a_frame_length_out_of_range_is_refused_by_name(self, secs: float) -> None:
        with pytest.raises(ValueError, match="input_frame_secs"):
            TwilioFrameSerializer.InputParams(input_frame_secs=secs)


class TestAnythingThatIsAudio:
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
            *({"rate": rate} for rate in (10**400, None, 16000.5, "16000", -1, 0, float("nan"))),
            *({"channels": channels} for channels in (None, 1.5, "2", 0, -1, float("inf"))),
            *({"audio": audio} for audio in (None, 5, "text", [0, 1])),
            {"audio": np.zeros(320, np.float32)},
        ],
    )
    async def test_any_other_value_is_dropped_with_a_warning(self, fields, log: list[str]) -> None:
        serializer = await ready()
        assert await serializer.serialize(self.frame(**fields)) is None
        assert [line.split()[0] for line in log] == ["WARNING"]
        assert len(log[0]) < 300
        for name, fault in (("rate", "_rate must be"), ("channels", "num_channels must be")):
            assert (fault in log[0]) == (name in fields)
        assert await serializer.serialize(self.frame()) is not None

    @pytest.mark.parametrize("channels", [65, 2**28, 2**40])
    async def test_more_channels_than_any_audio_has_take_no_memory(self, channels, log) -> None:
        serializer = await ready()
        with traced():
            assert await serializer.serialize(self.frame(channels=channels)) is None
            assert tracemalloc.get_traced_memory()[1] < 100_000
        assert "num_channels" in log[0]
