"""The report that the serializer keeps of its call."""

import asyncio
import json
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
from streams import CALL_SID, STREAM_SID, TOKEN, media, ready, speech

from pipecat_twilio import TwilioFrameSerializer, messages
from pipecat_twilio.twilio.hangup import Outcome


async def test_it_can_be_read_at_any_time(clock) -> None:
    serializer = await ready()
    for i in range(50):
        clock.now = 100 + 0.02 * i
        await serializer.deserialize(media(bytes(160), 20 * i))
    clock.now = 101.5
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # 80 ms
    clock.now = 101.68
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # 100 ms too late
    await serializer.deserialize("{")
    await serializer.serialize(OutputTransportMessageFrame(messages.mark(STREAM_SID, "a")))
    await serializer.deserialize(json.dumps(messages.mark(STREAM_SID, "a")))
    await serializer.serialize(OutputTransportMessageFrame(messages.mark(STREAM_SID, "b")))
    await serializer.serialize(InterruptionFrame())
    await serializer.deserialize(json.dumps(messages.mark(STREAM_SID, "b")))
    clock.now = 101.9
    await serializer.serialize(OutputAudioRawFrame(speech(1280), 16000, 1))  # a new answer
    await serializer.deserialize(media(bytes(160), 1920))
    report = serializer.call_report
    assert report.stream_sid == STREAM_SID
    assert report.caller_secs == pytest.approx(51 * 0.02)
    assert report.bot_secs == pytest.approx(0.24)
    assert report.first_audio_secs == pytest.approx(1.5)
    assert (report.gaps, report.gap_secs) == (1, pytest.approx(0.1))
    assert report.longest_silence_secs == pytest.approx(0.92)
    assert report.interruptions == 1
    assert report.dropped == {"an unreadable message": 1}
    assert (report.marks_played, report.marks_cleared) == (1, 1)
    assert (report.ended_by, report.rest_answer) == ("", "")


async def test_seconds_are_counted_at_the_rate_on_twilios_side(clock) -> None:
    serializer = await ready(twilio_sample_rate=16000)
    await serializer.deserialize(media(bytes(320)))
    await serializer.serialize(OutputAudioRawFrame(speech(1600), 16000, 1))
    report = serializer.call_report
    assert (report.caller_secs, report.bot_secs) == (pytest.approx(0.02), pytest.approx(0.1))
    assert serializer.unplayed_secs() == pytest.approx(0.1)
    serializer._twilio_sample_rate = 8000
    await serializer.deserialize(media(bytes(320), 20))
    await serializer.serialize(OutputAudioRawFrame(speech(1600), 16000, 1))
    report = serializer.call_report
    assert (report.caller_secs, report.bot_secs) == (pytest.approx(0.06), pytest.approx(0.2))
    assert serializer.unplayed_secs() == pytest.approx(0.2)


async def test_without_sids_it_has_empty_ones() -> None:
    params = TwilioFrameSerializer.InputParams(auto_hang_up=False)
    report = TwilioFrameSerializer(None, params=params).call_report
    assert (report.stream_sid, report.call_sid) == ("", "")


@pytest.mark.parametrize("frame", [EndFrame, CancelFrame])
async def test_the_end_is_one_line_in_the_log_without_secrets_and_a_callback(frame, log) -> None:
    reports: list[Any] = []
    params = TwilioFrameSerializer.InputParams(on_call_report=reports.append)
    serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN, params=params)
    outcome = Outcome(over=True, answer="200", attempts=1)
    with patch("pipecat_twilio.twilio.hangup.hang_up", AsyncMock(return_value=outcome)):
        await serializer.serialize(TextFrame("not yet"))
        assert not reports
        for _ in range(2):
            await serializer.serialize(frame())
    (report,) = reports
    assert report == serializer.call_report
    assert (report.call_sid, report.ended_by) == (CALL_SID, frame.__name__)
    assert report.rest_answer == "200"
    (line,) = log
    assert line.startswith("INFO")
    assert str(report) in line
    assert "token" not in line


async def test_a_call_handed_off_stays_so_when_its_stream_stops() -> None:
    serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
    serializer.hand_off()
    await serializer.deserialize(json.dumps({"event": "stop"}))
    await serializer.serialize(CancelFrame())
    assert serializer.call_report.ended_by == "hand_off()"


async def test_a_callback_that_raises_is_logged_and_changes_nothing(log: list[str]) -> None:
    def failing(_report: object) -> None:
        raise KeyError("secret")

    serializer = await ready(on_call_report=failing)
    assert await serializer.serialize(EndFrame()) is None
    assert [line.split()[0] for line in log] == ["INFO", "ERROR"]
    assert "KeyError" in log[1]
    assert "secret" not in log[1]


async def test_the_callback_may_be_a_coroutine_function() -> None:
    callback = AsyncMock()
    serializer = await ready(on_call_report=callback)
    await serializer.serialize(EndFrame())
    callback.assert_awaited_once_with(serializer.call_report)


async def test_a_cancelled_end_is_reported_on_too(log: list[str]) -> None:
    serializer = TwilioFrameSerializer(STREAM_SID, **TOKEN)
    await serializer.serialize(OutputAudioRawFrame(speech(8000), 8000, 1))
    with patch("pipecat_twilio.twilio.hangup.hang_up", AsyncMock()):
        end = asyncio.create_task(serializer.serialize(EndFrame()))
        await asyncio.sleep(0)
        end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await end
        assert serializer.call_report.ended_by == "EndFrame"
        await asyncio.sleep(0.01)  # the hang-up itself goes on, at once
