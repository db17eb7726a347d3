"""How the serializer's call ends, and the report on it; tests/twilio has the request itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, patch

import pytest
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    TextFrame,
)
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from streams import CALL_SID, STREAM_SID, TOKEN, media, ready, speech

from pipecat_twilio import TwilioFrameSerializer, messages
from pipecat_twilio.twilio.hangup import Outcome

STOP = json.dumps({"event": "stop", "streamSid": STREAM_SID})
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
    sent = AsyncMock(return_value=Outcome(over=True, answer="200", attempts=1))
    with patch("pipecat_twilio.twilio.hangup.hang_up", sent):
        yield sent


async def turns(count: int = 3) -> None:
    """Lets other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


Ends = Callable[[TwilioFrameSerializer], Any]


async def stops(serializer: TwilioFrameSerializer) -> None:
    await serializer.deserialize(STOP)


async def hands_off_and_stops(serializer: TwilioFrameSerializer) -> None:
    serializer.hand_off()
    await serializer.deserialize(STOP)


async def ends(serializer: TwilioFrameSerializer) -> None:
    await serializer.serialize(EndFrame())


async def is_cancelled(serializer: TwilioFrameSerializer) -> None:
    await serializer.serialize(CancelFrame())


async def hands_off_and_ends(serializer: TwilioFrameSerializer) -> None:
    serializer.hand_off()
    await serializer.serialize(EndFrame())


async def disconnects(serializer: TwilioFrameSerializer) -> None:
    serializer.socket_closed(None)


async def breaks_off(serializer: TwilioFrameSerializer) -> None:
    serializer.socket_closed(1006)


async def is_shut_down(serializer: TwilioFrameSerializer) -> None:
    serializer.socket_closed(1012)


ALL_ENDS = [
    (stops, "stop", False),
    (hands_off_and_stops, "hand_off()", False),
    (hands_off_and_ends, "hand_off()", False),
    (ends, "EndFrame", True),
    (is_cancelled, "CancelFrame", True),
    (disconnects, "disconnect", True),
    (breaks_off, "disconnect", True),
    (is_shut_down, "server stopped", True),
]


class TestEnds:
    """One report for each call, whoever ends it, and one request unless the call moved on."""

    @pytest.mark.parametrize(("end", "ended_by", "is_requested"), ALL_ENDS)
    async def test_each_way_to_end_is_reported_once_whatever_follows(
        self, end: Ends, ended_by: str, is_requested: bool, request_sent, log
    ) -> None:
        serializer, reports = ending_calls(hang_up_drain_secs=60)
        await serializer.serialize(TextFrame("not yet"))
        await asyncio.wait_for(end(serializer), 5)
        await turns()
        assert [report.ended_by for report in reports] == [ended_by]
        for following in (ends, *(way for way, _, _ in ALL_ENDS)):
            await asyncio.wait_for(following(serializer), 5)
        await serializer.deserialize(media(bytes(160)))
        await turns()
        assert len(reports) == 1
        assert (reports[0].stream_sid, reports[0].call_sid) == (STREAM_SID, CALL_SID)
        assert request_sent.await_count == is_requested
        assert sum(str(reports[0]) in line for line in log) == 1
        assert not any("token" in line for line in log)

    @pytest.mark.parametrize("frame", [EndFrame, CancelFrame])
    async def test_the_answer_to_the_request_is_in_the_report(self, frame, request_sent) -> None:
        serializer, reports = ending_calls()
        await serializer.serialize(frame())
        assert reports == [serializer.call_report]
        assert reports[0].rest_answer == "200"

    @pytest.mark.parametrize("end", [stops, disconnects])
    async def test_what_follows_a_request_did_not_end_the_call(self, end: Ends) -> None:
        serializer, reports = ending_calls()
        serializer._hang_up_call = lambda: end(serializer)
        await ends(serializer)
        assert [report.ended_by for report in reports] == ["EndFrame"]

    @pytest.mark.parametrize(("end", "is_requested"), [(stops, False), (disconnects, True)])
    async def test_a_caller_who_leaves_while_the_last_words_are_played_ends_the_wait(
        self, end: Ends, is_requested, request_sent
    ) -> None:
        serializer, reports = ending_calls(hang_up_drain_secs=60)
        await serializer.serialize(MINUTE)
        ending = asyncio.create_task(ends(serializer))
        await turns()
        assert not reports
        await end(serializer)
        await asyncio.wait_for(ending, 5)
        assert request_sent.await_count == is_requested
        assert len(reports) == 1

    async def test_the_dead_socket_of_a_call_that_goes_on_is_not_waited_for(
        self, request_sent
    ) -> None:
        serializer, _ = ending_calls(hang_up_drain_secs=60)
        await serializer.serialize(MINUTE)
        serializer.socket_closed(None)
        await asyncio.wait_for(ends(serializer), 5)
        request_sent.assert_awaited_once()

    async def test_a_cancelled_end_is_reported_and_the_request_is_made(self, request_sent) -> None:
        serializer, reports = ending_calls()
        await serializer.serialize(MINUTE)
        ending = asyncio.create_task(ends(serializer))
        await asyncio.sleep(0)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await turns()
        assert [report.ended_by for report in reports] == ["EndFrame"]
        request_sent.assert_awaited_once()

    @pytest.mark.parametrize(
        ("end", "silence"), [(ends, 0.02), (is_cancelled, 8), (stops, 8), (disconnects, 8)]
    )
    async def test_nobody_listened_to_the_line_before_an_end_frame(
        self, end: Ends, silence, clock, request_sent
    ) -> None:
        serializer, reports = ending_calls()
        await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
        for i in range(2):
            clock.now = 100 + 0.02 * i
            await serializer.deserialize(media(bytes(160), 20 * i))
        clock.now += 8  # of goodbye, in which Pipecat's own transport reads nothing
        await end(serializer)
        await turns()
        assert reports[0].longest_silence_secs == pytest.approx(silence)


class TestCallback:
    """`on_call_report` holds nobody up."""

    @pytest.mark.parametrize(("end", "ended_by", "_is_requested"), ALL_ENDS)
    async def test_a_callback_that_never_returns_is_one_error_and_the_pipeline_ends(
        self, end: Ends, ended_by: str, _is_requested, request_sent, log
    ) -> None:
        async def never(_report: object) -> None:
            await asyncio.Event().wait()

        serializer, _ = ending_calls(on_call_report=never, hang_up_timeout_secs=0.05)
        await asyncio.wait_for(end(serializer), 5)
        await asyncio.wait_for(ends(serializer), 5)
        await turns()
        errors = [line for line in log if line.startswith("ERROR")]
        assert [line.split(": ")[1] for line in errors] == ["on_call_report failed"]
        assert serializer.call_report.ended_by == ended_by

    @pytest.mark.parametrize("end", [ends, stops, disconnects])
    @pytest.mark.parametrize("kind", [AsyncMock, lambda **effect: AsyncMock(**effect).__call__])
    async def test_a_callback_that_raises_is_one_error_without_its_text(
        self, end: Ends, kind, log, request_sent
    ) -> None:
        serializer, _ = ending_calls(on_call_report=kind(side_effect=KeyError("secret")))
        await end(serializer)
        await turns()
        errors = [line for line in log if line.startswith("ERROR")]
        assert len(errors) == 1
        assert errors[0].endswith("on_call_report failed: KeyError\n")

    async def test_the_end_waits_for_a_coroutine_and_a_stop_does_not(self, request_sent) -> None:
        told: list[Any] = []

        async def slow(report: Any) -> None:
            await asyncio.sleep(0.01)
            told.append(report)

        serializer, _ = ending_calls(on_call_report=slow)
        await stops(serializer)
        assert not told
        await ends(serializer)
        assert told == [serializer.call_report]

    def test_without_an_event_loop_it_is_called_at_once(self) -> None:
        serializer, reports = ending_calls()
        serializer.socket_closed(None)
        assert [report.ended_by for report in reports] == ["disconnect"]


async def test_the_report_can_be_read_at_any_time(clock) -> None:
    serializer = await ready()
    for i in range(50):
        clock.now = 100 + 0.02 * i
        await serializer.deserialize(media(bytes(160), 20 * i))
    clock.now = 101.5
    mark = OutputTransportMessageFrame(messages.mark(STREAM_SID, "a"))
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # 80 ms
    await serializer.serialize(mark)
    clock.now = 101.68
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # 100 ms too late
    await serializer.serialize(mark)
    await serializer.serialize(InterruptionFrame())
    for _ in range(2):
        await serializer.deserialize(json.dumps(messages.mark(STREAM_SID, "a")))
    await serializer.deserialize("{")
    clock.now = 101.9
    serializer.caller_stopped(0.5)
    serializer.speech_started()
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # a new answer
    serializer.speech_ended()
    clock.now = 102.5
    serializer.caller_stopped(0.7)
    serializer.speech_started()
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # and another
    serializer.caller_stopped(9)  # while the bot is heard
    serializer.speech_started()
    await serializer.deserialize(media(bytes(160), 2520))
    report = serializer.call_report
    assert (report.stream_sid, report.call_sid) == (STREAM_SID, "")
    assert report.caller_secs == pytest.approx(51 * 0.02)
    assert report.bot_secs == pytest.approx(0.32)
    assert report.first_audio_secs == pytest.approx(1.5)
    assert report.answers == 2
    assert (report.answer_secs, report.worst_answer_secs) == pytest.approx((0.6, 0.7))
    assert (report.gaps, report.gap_secs) == (1, pytest.approx(0.1))
    assert report.longest_silence_secs == pytest.approx(1.52)
    assert report.interruptions == 1
    assert report.dropped == {"an unreadable message": 1}
    assert (report.marks_played, report.marks_cleared) == (1, 1)
    assert (report.ended_by, report.rest_answer) == ("", "")


async def test_seconds_are_counted_at_the_rate_on_twilios_side(clock) -> None:
    serializer = await ready(twilio_sample_rate=16000)
    for rate, caller_secs, bot_secs in ((16000, 0.02, 0.1), (8000, 0.06, 0.2)):
        serializer._twilio_sample_rate = rate
        await serializer.deserialize(media(bytes(320)))
        await serializer.serialize(OutputAudioRawFrame(speech(1600), 16000, 1))
        report = serializer.call_report
        assert (report.caller_secs, report.bot_secs) == pytest.approx((caller_secs, bot_secs))
        assert serializer.unplayed_secs() == pytest.approx(bot_secs)
        assert serializer.unplayed_sound_secs() == pytest.approx(bot_secs, abs=0.001)


class Waiting:
    """Replaces `PendingHangUp`: it ends the call when the test sets `may_end`."""

    def __init__(self, end_call: Any, wait_secs: Callable[[], float], *, name: str) -> None:
        self.end_call, self.wait_secs, self.name = end_call, wait_secs, name
        self.stopped_waiting = False
        self.may_end = asyncio.Event()

    def stop_waiting(self) -> None:
        self.stopped_waiting = True

    async def done(self) -> None:
        await self.may_end.wait()
        await self.end_call()


@asynccontextmanager
async def end_of(serializer: TwilioFrameSerializer, pcm: bytes) -> AsyncIterator[Any]:
    """Sends PCM, then ends the pipeline; yields the hang-up, which is made on exit."""
    await serializer.serialize(OutputAudioRawFrame(pcm, 8000, 1))
    with patch("pipecat_twilio.call_ending.PendingHangUp", Waiting):
        ending = asyncio.create_task(serializer.serialize(EndFrame()))
        await asyncio.sleep(0)
    yield serializer._pending_hang_up
    serializer._pending_hang_up.may_end.set()
    await ending


@pytest.mark.usefixtures("clock")
class TestTheWaitForTheLastWords:
    async def test_it_ends_with_the_last_sound(self, clock, request_sent) -> None:
        serializer, _ = ending_calls()
        async with end_of(serializer, speech(2400) + bytes(160_000)) as waiting:
            assert waiting.name == str(serializer)
            assert waiting.wait_secs() == pytest.approx(0.3)
            clock.now += 0.2
            await serializer.serialize(OutputAudioRawFrame(speech(800), 8000, 1))
            clock.now += 9.9  # the silence
            assert waiting.wait_secs() <= 1e-9
            request_sent.assert_not_awaited()
        request_sent.assert_awaited_once()

    @pytest.mark.parametrize(
        ("params", "max_secs"),
        [
            (InputParams(hang_up_drain_secs=0.05), 0.05),
            *((InputParams.model_construct(hang_up_drain_secs=odd), 2) for odd in (None, "2", -1)),
            (PipecatSerializer.InputParams(), 2),  # which lacks the field
        ],
    )
    async def test_it_has_a_limit(self, params, max_secs: float, clock, request_sent) -> None:
        serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN, params=params)
        async with end_of(serializer, MINUTE.audio) as waiting:
            assert waiting.wait_secs() == pytest.approx(max_secs)
            clock.now += max_secs
            assert waiting.wait_secs() <= 1e-9

    @pytest.mark.parametrize("frame", [CancelFrame, InterruptionFrame])
    async def test_a_cancel_or_an_interruption_cuts_it_short(self, frame, request_sent) -> None:
        serializer, _ = ending_calls()
        async with end_of(serializer, MINUTE.audio) as waiting:
            assert not waiting.stopped_waiting
            waiting.may_end.set()
            await serializer.serialize(frame())
            assert waiting.stopped_waiting

    async def test_an_interruption_before_it_leaves_nothing_to_wait_for(self, request_sent) -> None:
        serializer, _ = ending_calls()
        await serializer.serialize(MINUTE)
        await serializer.serialize(InterruptionFrame())
        async with end_of(serializer, b"") as waiting:
            assert waiting.wait_secs() <= 0


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
        *[("_account_sid", ""), ("_auth_token", None), ("_region", "ie1")],
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
