"""The call report, at times that the test sets."""

import pytest

from pipecat_twilio.twilio.call_report import CallRecord, CallReport


def report_of(record: CallRecord, now: float = 0.0) -> CallReport:
    return record.report("MZ1", "CA1", now)


def test_a_call_without_audio_has_no_times() -> None:
    report = report_of(CallRecord())
    assert "answer_secs" not in str(report)
    assert report.first_audio_secs is report.answer_secs is report.worst_answer_secs is None
    assert (report.caller_secs, report.bot_secs, report.gaps, report.answers) == (0, 0, 0, 0)


def test_the_first_audio_counts_from_the_message_with_the_least_delay() -> None:
    record = CallRecord()
    # The bot is slow to read the first ones, which had been waiting for it.
    for stream_secs, now in ((0.0, 50.5), (0.02, 50.5), (0.52, 50.55), (0.54, 50.6)):
        record.heard(0.02, stream_secs, now)
    record.said(0.04, 0.0, 51.03)
    record.heard(0.02, 90.0, 52)  # a stray timestamp after it changes nothing
    assert report_of(record).first_audio_secs == pytest.approx(1.0)
    assert report_of(record).caller_secs == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("empty_secs", "speech_is_over", "counts"),
    [
        (0.02, False, False),  # the network's jitter
        (0.021, False, True),
        (0.999, False, True),
        (1.0, False, False),  # a pause between two answers
        (0.5, True, False),
    ],
)
def test_a_gap_is_a_short_break_in_the_midst_of_speech(empty_secs, speech_is_over, counts) -> None:
    record = CallRecord()
    record.said(0.04, 0.5, 50.0)  # nothing was said before
    record.speech_is_over = speech_is_over
    record.said(0.04, empty_secs, 50.1)
    record.said(0.04, 0.3, 55.0)
    report = report_of(record)
    assert (report.gaps, report.gap_secs) == (1 + counts, 0.3 + counts * empty_secs)
    assert report.bot_secs == pytest.approx(0.12)


@pytest.mark.parametrize(("counts_silence", "longest"), [(True, 1.0), (False, 0.48)])
def test_the_silence_that_goes_on_at_the_end_counts_if_somebody_listened(
    counts_silence: bool, longest: float
) -> None:
    record = CallRecord()
    assert report_of(record, 60.0).longest_silence_secs == 0
    for now in (50.0, 50.02, 50.5, 50.52):
        record.heard(0.02, 0.0, now)
    assert report_of(record, 50.6).longest_silence_secs == pytest.approx(0.48)
    assert report_of(record, 51.1).longest_silence_secs == pytest.approx(0.58)
    record.end("CancelFrame", 51.52, counts_silence=counts_silence)
    report = report_of(record, 99.0)
    assert report.longest_silence_secs == pytest.approx(longest)
    assert report.ended_by == "CancelFrame"


def test_a_report_does_not_change_later_and_is_one_line_whatever_the_sids_are() -> None:
    record = CallRecord(answer_times=[0.7, 3.0, 0.8])
    record.said(0.04, 0.0, 50.0)
    record.said(0.04, 1 / 3, 51.0)
    record.dropped["an unreadable message"] += 1
    report = record.report("MZ1\nERROR \x1b[31m", "C" * 10**6, 0.0)
    record.dropped["an unreadable message"] += 1
    record.interruptions += 1
    assert (report.dropped, report.interruptions) == ({"an unreadable message": 1}, 0)
    with pytest.raises(AttributeError):
        report.gaps = 5
    line = str(report)
    assert line.isprintable()
    assert "stream_sid 'MZ1\\nERROR \\x1b[31m', call_sid CCC" in line
    assert len(line) < 1000
    assert "gap_secs 0.33, " in line
    assert "rest_answer" not in line
    assert "answers 3, answer_secs 0.80, worst_answer_secs 3.00" in line
    assert report.first_audio_secs == 0  # who speaks before the caller speaks at once
