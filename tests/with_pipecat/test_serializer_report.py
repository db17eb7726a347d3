"""What the serializer makes of marks, and its part of the call report."""

import json
import re

import pytest
from pipecat.frames.frames import (
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
    SystemFrame,
)
from streams import STREAM_SID, media, ready, speech

from pipecat_twilio import MarkFrame, messages

CLEAR = {"event": "clear", "streamSid": STREAM_SID}


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


class TestMarks:
    async def test_it_is_a_system_frame_with_the_marks_name(self) -> None:
        message = messages.mark(STREAM_SID, "greeting") | {"sequenceNumber": "4"}
        frame = await (await ready()).deserialize(json.dumps(message))
        assert isinstance(frame, MarkFrame)
        assert isinstance(frame, SystemFrame)
        assert (frame.name, frame.stream_sid, frame.cleared) == ("greeting", STREAM_SID, False)
        assert re.fullmatch(r"MarkFrame#\d+\('greeting', cleared: False\)", str(frame))

    @pytest.mark.parametrize(
        "frame_class",
        [OutputTransportMessageFrame, OutputTransportMessageUrgentFrame],
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
