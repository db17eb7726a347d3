"""How the serializer's call ends, and who is told; tests/twilio has the request itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock, patch

import pytest
from pipecat.frames.frames import CancelFrame, EndFrame, InterruptionFrame, OutputAudioRawFrame
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from streams import CALL_SID, STREAM_SID, TOKEN, media, speech

from pipecat_twilio import TwilioFrameSerializer
from pipecat_twilio.twilio.hangup import Answer

MINUTE = OutputAudioRawFrame(speech(60 * 8000), 8000, 1)
InputParams = TwilioFrameSerializer.InputParams


def ending_calls(**params: Any) -> tuple[TwilioFrameSerializer, list[Any]]:
    """Returns a serializer that can end its call, and the list to which it adds its reports."""
    reports: list[Any] = []
    params = {"on_call_report": reports.append, **params}
    return TwilioFrameSerializer(STREAM_SID, **TOKEN, params=InputParams(**params)), reports


@pytest.fixture
def request_sent():
    """Replaces the request that ends a call."""
    sent = AsyncMock(return_value=Answer("200"))
    with patch("pipecat_twilio.twilio.hangup.hang_up", sent):
        yield sent


async def turns(count: int = 3) -> None:
    """Lets other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def happens(serializer: TwilioFrameSerializer, event: Any) -> None:
    """A frame is serialized, a message is read, or the socket is closed with a code."""
    if isinstance(event, type):
        await serializer.serialize(event())
    elif event == "stop":
        await serializer.deserialize(json.dumps({"event": "stop", "streamSid": STREAM_SID}))
    elif event == "hand off":
        serializer.hand_off()
    else:
        serializer.socket_closed(event)


# Events; who ended the call, as the report says; whether the call has to be ended over REST.
ALL_ENDS = [
    (["stop"], "stop", False),
    (["hand off", "stop"], "hand_off()", False),
    (["hand off", EndFrame], "hand_off()", False),
    ([EndFrame], "EndFrame", True),
    ([CancelFrame], "CancelFrame", True),
    ([None], "disconnect", True),
    ([1006], "disconnect", True),
    ([1012], "server stopped", True),
]


class TestEnds:
    @pytest.mark.parametrize(("end", "ended_by", "is_requested"), ALL_ENDS)
    async def test_each_way_to_end_is_reported_once_and_requested_unless_the_call_moved_on(
        self, end: list[Any], ended_by: str, is_requested: bool, request_sent, log
    ) -> None:
        serializer, reports = ending_calls(hang_up_drain_secs=60)
        for event in end:
            await asyncio.wait_for(happens(serializer, event), 5)
        await turns()
        assert reports == [serializer.call_report]
        assert reports[0].ended_by == ended_by
        assert reports[0].rest_answer == ("200" if end[0] in (EndFrame, CancelFrame) else "")
        assert (reports[0].stream_sid, reports[0].call_sid) == (STREAM_SID, CALL_SID)
        for event in [EndFrame, *(event for events, _, _ in ALL_ENDS for event in events)]:
            await asyncio.wait_for(happens(serializer, event), 5)
        await serializer.deserialize(media(bytes(160)))
        await turns()
        assert len(reports) == 1
        assert request_sent.await_count == is_requested
        assert sum(str(reports[0]) in line for line in log) == 1
        assert not any("token" in line for line in log)

    @pytest.mark.parametrize("event", ["stop", None])
    async def test_what_follows_a_request_did_not_end_the_call(self, event) -> None:
        serializer, reports = ending_calls()
        serializer._hang_up_call = lambda: happens(serializer, event)
        await happens(serializer, EndFrame)
        assert [report.ended_by for report in reports] == ["EndFrame"]

    async def test_a_cancelled_end_is_reported_and_the_request_is_made(self, request_sent) -> None:
        serializer, reports = ending_calls()
        await serializer.serialize(MINUTE)
        ending = asyncio.create_task(happens(serializer, EndFrame))
        await asyncio.sleep(0)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await turns()
        assert [report.ended_by for report in reports] == ["EndFrame"]
        request_sent.assert_awaited_once()

    @pytest.mark.parametrize(
        ("end", "silence"),
        [(EndFrame, 0.02), (CancelFrame, 8), ("stop", 8), (None, 8)],
    )
    async def test_nobody_listened_to_the_line_before_an_end_frame(
        self, end, silence, clock, request_sent
    ) -> None:
        serializer, reports = ending_calls()
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        for i in range(2):
            clock.now = 100 + 0.02 * i
            await serializer.deserialize(media(bytes(160), 20 * i))
        clock.now += 8  # of goodbye, in which Pipecat's own transport reads nothing
        await happens(serializer, end)
        await turns()
        assert reports[0].longest_silence_secs == pytest.approx(silence)


class TestCallback:
    """`on_call_report` holds nobody up."""

    @pytest.mark.parametrize("end", [EndFrame, CancelFrame, "stop", None])
    @pytest.mark.parametrize(
        ("callback", "error"),
        [
            (lambda _: asyncio.Event().wait(), "TimeoutError"),
            (AsyncMock(side_effect=KeyError("secret")), "KeyError"),
            (lambda _: {}["secret"], "KeyError"),
        ],
    )
    async def test_a_callback_that_fails_or_never_returns_is_one_error_without_its_text(
        self, callback, error: str, end, log, request_sent
    ) -> None:
        serializer, _ = ending_calls(on_call_report=callback, hang_up_timeout_secs=0.05)
        await asyncio.wait_for(happens(serializer, end), 5)
        await asyncio.wait_for(happens(serializer, EndFrame), 5)
        await turns()
        errors = [line.split(": ", 1)[1] for line in log if line.startswith("ERROR")]
        assert errors == [f"on_call_report failed: {error}\n"]

    async def test_the_end_waits_for_a_coroutine_and_a_stop_does_not(self, request_sent) -> None:
        told: list[Any] = []

        async def slow(report: Any) -> None:
            await asyncio.sleep(0.01)
            told.append(report)

        serializer, _ = ending_calls(on_call_report=slow)
        await happens(serializer, "stop")
        assert not told
        await happens(serializer, EndFrame)
        assert told == [serializer.call_report]

    def test_without_an_event_loop_it_is_called_at_once(self) -> None:
        serializer, reports = ending_calls()
        serializer.socket_closed(None)
        assert [report.ended_by for report in reports] == ["disconnect"]


class TestTheWaitForTheLastWords:
    """`wait_secs` is what `PendingHangUp` is told; it is replaced."""

    @pytest.fixture
    async def waiting(self, monkeypatch) -> AsyncIterator[SimpleNamespace]:
        waiting = SimpleNamespace(ended=asyncio.Event(), stop_waiting=Mock())
        waiting.done = waiting.ended.wait

        def made(_: Any, wait_secs: Callable[[], float], *, name: str) -> SimpleNamespace:
            waiting.wait_secs, waiting.name = wait_secs, name
            return waiting

        monkeypatch.setattr("pipecat_twilio.call_ending.PendingHangUp", made)
        async with asyncio.TaskGroup() as tasks:
            waiting.begin = lambda serializer: tasks.create_task(serializer.serialize(EndFrame()))
            yield waiting
            waiting.ended.set()

    async def test_it_ends_with_the_last_sound(self, clock, waiting) -> None:
        serializer, _ = ending_calls()
        pcm = speech(2400) + bytes(160_000)
        await serializer.serialize(OutputAudioRawFrame(pcm, 8000, 1))
        waiting.begin(serializer)
        await turns()
        assert waiting.name == str(serializer)
        assert waiting.wait_secs() == pytest.approx(0.3)
        clock.now += 0.2
        await serializer.serialize(OutputAudioRawFrame(speech(800), 8000, 1))
        clock.now += 9.9  # the silence
        assert waiting.wait_secs() <= 1e-9

    @pytest.mark.parametrize(
        ("params", "max_secs"),
        [
            (InputParams(hang_up_drain_secs=0.05), 0.05),
            *((InputParams.model_construct(hang_up_drain_secs=odd), 2) for odd in (None, "2", -1)),
            (PipecatSerializer.InputParams(), 2),  # which lacks the field
        ],
    )
    async def test_it_has_a_limit(self, params, max_secs: float, clock, waiting) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN, params=params)
        await serializer.serialize(MINUTE)
        waiting.begin(serializer)
        await turns()
        assert waiting.wait_secs() == pytest.approx(max_secs)
        clock.now += max_secs
        assert waiting.wait_secs() <= 1e-9

    @pytest.mark.parametrize("frame", [CancelFrame, InterruptionFrame])
    async def test_a_cancel_or_an_interruption_cuts_it_short(self, frame, waiting) -> None:
        serializer, _ = ending_calls()
        waiting.begin(serializer)
        await turns()
        waiting.stop_waiting.assert_not_called()
        waiting.ended.set()
        await serializer.serialize(frame())
        waiting.stop_waiting.assert_called()


@pytest.mark.parametrize(
    ("params", "max_secs"),
    [(InputParams(hang_up_timeout_secs=7), 7), (PipecatSerializer.InputParams(), 5)],
)
async def test_the_request_has_a_time_limit(params, max_secs, request_sent) -> None:
    await TwilioFrameSerializer(STREAM_SID, **TOKEN, params=params).serialize(EndFrame())
    assert request_sent.await_args.kwargs == {"timeout_secs": max_secs}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("_call_sid", odd) for odd in ("CA1/../x", None, 5)),
        *[("_account_sid", ""), ("_auth_token", None), ("_region", "ie1"), ("_edge", "dublin")],
        ("_base_url", "ftp://example.com"),
    ],
)
async def test_without_a_valid_address_or_login_no_request_is_made_and_an_error_names_why(
    name: str, value: Any, request_sent, log: list[str]
) -> None:
    serializer, _ = ending_calls()
    setattr(serializer, name, value)
    assert await serializer.serialize(EndFrame()) is None
    request_sent.assert_not_awaited()
    (error,) = [line for line in log if line.startswith("ERROR")]
    assert "left the call open" in error
    assert name[1:] in error
    assert "token" not in error.replace("auth_token", "")


def test_the_traceback_of_a_refused_argument_has_no_line_that_holds_a_secret() -> None:
    with pytest.raises(ValueError, match="region") as error:
        TwilioFrameSerializer(STREAM_SID, **TOKEN, region="ie1")
    # Loguru shows the variables in each line: `checked` has none of them, `CallResource` does.
    assert [entry.name for entry in error.traceback][-1] == "checked"
