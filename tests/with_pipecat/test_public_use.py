"""What public bots, providers and frameworks do with Pipecat's class: a test for each pattern.

If Pipecat's own class has the behaviour, each test runs on that class first, and then on ours.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, patch

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pipecat.audio.resamplers.soxr_stream_resampler import SOXRStreamAudioResampler
from pipecat.frames.frames import CancelFrame, EndFrame, InterruptionFrame, OutputAudioRawFrame
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
)

from pipecat_twilio import SincResampler, TwilioFrameSerializer, ulaw

CLEAR = {"event": "clear", "streamSid": STREAM_SID}

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


def audio(pcm: bytes = bytes(640), rate: int = 16000) -> OutputAudioRawFrame:
    return OutputAudioRawFrame(pcm, rate, 1)


class TestWhatIsNeededAtHangUp:
    """Private attributes may be assigned at any time; they are read when the call is ended."""

    @both
    @pytest.mark.parametrize("frame", [EndFrame, CancelFrame])
    async def test_sids_token_and_address_may_be_assigned_later(
        self, serializer_class, frame, api
    ) -> None:
        serializer = quiet(serializer_class)
        serializer._account_sid, serializer._call_sid = "AC" + "4" * 32, CALL_SID
        serializer._auth_token, serializer._base_url = "another", api.base_url
        await serializer.serialize(frame())
        assert not api.ended
        serializer._params.auto_hang_up = True
        await serializer.serialize(frame())
        assert api.ended == {path_of(CALL_SID, "AC" + "4" * 32): 1}

    async def test_an_api_key_may_be_assigned_in_place_of_a_token(self, api) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN, base_url=api.base_url)
        serializer._auth_token = None
        serializer._api_key_sid, serializer._api_key_secret = "SK1", "secret"
        await serializer.serialize(EndFrame())
        assert api.logins == {"Basic U0sxOnNlY3JldA=="}

    @both
    @pytest.mark.parametrize("attempted", [True, False])
    async def test_a_bot_that_ended_the_call_itself_can_say_so(
        self, serializer_class, attempted: bool, api
    ) -> None:
        serializer = serializer_class(STREAM_SID, **TOKEN, base_url=api.base_url)
        serializer._hangup_attempted = attempted
        for _ in range(2):
            await serializer.serialize(EndFrame())
        assert api.ended.total() == (not attempted)
        assert serializer._hangup_attempted

    @both
    async def test_hang_up_may_be_replaced_on_class_and_object(self, serializer_class) -> None:
        with patch.object(serializer_class, "_hang_up_call", AsyncMock()) as hang_up:
            await serializer_class(STREAM_SID, **TOKEN).serialize(EndFrame())
        hang_up.assert_awaited_once()
        serializer = serializer_class(STREAM_SID, **TOKEN)
        serializer._hang_up_call = hang_up = AsyncMock()
        await serializer.serialize(EndFrame())
        hang_up.assert_awaited_once()


class Doubling:
    """A resampler that has `resample` only."""

    def __init__(self) -> None:
        self.rates: list[tuple[int, int]] = []

    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        self.rates.append((in_rate, out_rate))
        return np.repeat(np.frombuffer(audio, "<i2"), 2).tobytes()


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
        for resampler in (ours._input_resampler, ours._output_resampler):
            assert len(await resampler.resample(bytes(320), 8000, 8000)) == 320

    async def test_the_audio_has_the_rate_that_is_assigned_unless_it_is_impossible(
        self, log
    ) -> None:
        serializer = await ready(16000)
        codes = ulaw.encode(speech(160))
        await serializer.deserialize(media(codes, 0))
        for impossible in ("fast", None, -1, 10**400, 1.5):
            serializer._sample_rate = impossible
            assert await serializer.deserialize(media(codes)) is None
        assert log[0].startswith("WARNING")
        serializer._sample_rate = 24000
        frame = await serializer.deserialize(media(codes, 20))
        assert (frame.sample_rate, frame.num_frames) == (24000, 480)
        assert frame.audio == SincResampler(8000, 24000).process(ulaw.decode(codes))

    @both
    async def test_an_assigned_twilio_sample_rate_is_used(self, serializer_class) -> None:
        serializer = quiet(serializer_class)
        serializer._twilio_sample_rate = serializer._sample_rate = 16000
        frame = await serializer.deserialize(media(bytes(320)))
        assert (frame.sample_rate, frame.num_frames) == (16000, 320)
        assert len(payload_of(await serializer.serialize(audio()))) == 320

    @both
    async def test_an_assigned_resampler_is_used(self, serializer_class) -> None:
        serializer = quiet(serializer_class)
        serializer._sample_rate = 16000
        serializer._input_resampler = serializer._output_resampler = resampler = Doubling()
        frame = await serializer.deserialize(media(ulaw.encode(speech(160))))
        samples = np.frombuffer(frame.audio, "<i2")
        np.testing.assert_array_equal(samples[::2], samples[1::2])
        assert len(payload_of(await serializer.serialize(audio(bytes(160), 4000)))) == 160
        assert resampler.rates == [(8000, 16000), (4000, 8000)]
        # It has no `reset`, and the caller is interrupted all the same.
        assert json.loads(await serializer.serialize(InterruptionFrame())) == CLEAR

    async def test_pipecats_own_resampler_is_reset_by_an_interruption(self) -> None:
        serializer = await ready()
        serializer._output_resampler = SOXRStreamAudioResampler()
        for _ in range(9):
            await serializer.serialize(audio(speech(640)))
        await serializer.serialize(InterruptionFrame())
        texts = [await serializer.serialize(audio(bytes(1280))) for _ in range(9)]
        codes = set(b"".join(payload_of(text) for text in texts if text))
        assert codes <= {0x7F, 0xFF}  # the two of silence

    async def test_a_failing_resampler_costs_a_frame_and_a_short_warning(self, log) -> None:
        serializer = await ready()
        serializer._input_resampler = serializer._output_resampler = AsyncMock()
        serializer._input_resampler.resample.side_effect = RuntimeError("out of order" * 1000)
        serializer._input_resampler.reset.side_effect = RuntimeError
        assert await serializer.deserialize(media(bytes(160))) is None
        assert await serializer.serialize(audio()) is None
        assert json.loads(await serializer.serialize(InterruptionFrame())) == CLEAR
        assert [line.split()[0] for line in log] == ["WARNING"] * 3
        assert ["RuntimeError('out of order" in line for line in log] == [True, True, False]
        assert max(map(len, log)) < 300


class TestSubclasses:
    """Subclasses of several kinds, and params of several kinds."""

    async def test_a_subclass_may_skip_the_constructor(self, log: list[str]) -> None:
        kind = type("Own", (TwilioFrameSerializer,), {"__init__": lambda _: None})
        serializer = kind()
        assert serializer._params.auto_hang_up
        assert await serializer.deserialize("{") is None
        assert await serializer.deserialize(json.dumps(documented("start"))) is None
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        frame = await serializer.deserialize(media(bytes(160)))
        assert (frame.sample_rate, frame.num_frames) == (16000, 320)
        assert len(payload_of(await serializer.serialize(audio()))) == 160
        assert json.loads(await serializer.serialize(InterruptionFrame())) == CLEAR
        assert await serializer.serialize(EndFrame()) is None
        # "{", no credentials, and the report.
        assert [line.split()[0] for line in log] == ["WARNING", "ERROR", "INFO"]

    @pytest.mark.parametrize(
        ("params", "rate", "hangs_up"),
        [
            (SimpleNamespace(auto_hang_up=False, sample_rate=24000), 24000, False),
            (FrameSerializer.InputParams(), 16000, True),  # has none of Twilio's fields
        ],
    )
    async def test_params_may_be_any_object(self, params, rate: int, hangs_up: bool) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN, params=params)
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        assert (await serializer.deserialize(media(bytes(160)))).sample_rate == rate
        with patch.object(serializer, "_hang_up_call", AsyncMock()) as hang_up:
            await serializer.serialize(EndFrame())
        assert hang_up.await_count == hangs_up
