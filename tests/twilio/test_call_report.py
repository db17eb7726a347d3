"""The call report, at times that the test sets; tests/calls has it with real calls."""

import pytest

from pipecat_twilio.twilio.call_report import CallRecord, CallReport


def report_of(record: CallRecord, now: float = 0.0) -> CallReport:
    return record.report("MZ1", "CA1", now)


def test_a_call_without_audio_has_no_first_audio() -> None:
    report = report_of(CallRecord())
    assert report.first_audio_secs is None
    assert (report.caller_secs, report.bot_secs, report.gaps) == (0, 0, 0)


def test_audio_is_counted_in_seconds() -> None:
    record = CallRecord()
    for i in range(100):
        record.heard(0.02, 0.02 * i, 50 + 0.02 * i)
        record.said(0.01, 0.0, 50 + 0.02 * i)
    report = report_of(record)
    assert report.caller_secs == pytest.approx(2)
    assert report.bot_secs == pytest.approx(1)


def test_the_stream_began_where_its_quickest_message_says() -> None:
    record = CallRecord()
    # The bot is slow to read the first ones, which had been waiting for it.
    for stream_secs, now in ((0.0, 50.5), (0.02, 50.5), (0.52, 50.55), (0.54, 50.6)):
        record.heard(0.02, stream_secs, now)
    record.said(0.04, 0.0, 51.03)
    record.heard(0.02, 90.0, 52)  # a stray timestamp after it changes nothing
    assert report_of(record).first_audio_secs == pytest.approx(1.0)


def test_the_first_audio_of_a_bot_that_speaks_before_the_caller_is_at_once() -> None:
    record = CallRecord()
    record.said(0.04, 0.0, 50.0)
    assert report_of(record).first_audio_secs == 0


@pytest.mark.parametrize(("empty_secs", "counts"), [(0.0, False), (0.02, False), (0.021, True)])
def test_a_gap_is_a_break_that_the_networks_jitter_does_not_explain(empty_secs, counts) -> None:
    record = CallRecord()
    record.said(0.04, 0.0, 50.0)
    record.said(0.04, empty_secs, 50.1)
    assert report_of(record).gaps == counts
    assert report_of(record).gap_secs == (empty_secs if counts else 0)


def test_a_long_break_and_one_after_the_end_of_speech_are_no_gaps() -> None:
    record = CallRecord()
    record.said(0.04, 99.0, 50.0)  # nothing was said before
    record.said(0.04, 1.0, 52.0)
    record.speech_is_over = True
    record.said(0.04, 0.5, 53.0)
    assert report_of(record).gaps == 0
    record.said(0.04, 0.3, 54.0)
    record.said(0.04, 0.2, 55.0)
    assert (report_of(record).gaps, report_of(record).gap_secs) == (2, pytest.approx(0.5))


def test_the_longest_silence_is_between_two_messages() -> None:
    record = CallRecord()
    for now in (50.0, 50.02, 50.5, 50.52):
        record.heard(0.02, 0.0, now)
    assert report_of(record).longest_silence_secs == pytest.approx(0.48)


def test_a_silence_that_goes_on_counts_until_the_call_ends() -> None:
    record = CallRecord()
    assert report_of(record, 60.0).longest_silence_secs == 0
    record.heard(0.02, 0.0, 50.0)
    assert report_of(record, 50.5).longest_silence_secs == pytest.approx(0.5)
    record.end("CancelFrame", 51.0)
    report = report_of(record, 99.0)
    assert report.longest_silence_secs == pytest.approx(1.0)
    assert report.ended_by == "CancelFrame"


def test_a_report_does_not_change_afterwards_and_can_be_read_as_a_line() -> None:
    record = CallRecord()
    record.said(0.04, 0.0, 50.0)
    record.said(0.04, 1 / 3, 51.0)
    record.dropped["an unreadable message"] += 1
    report = report_of(record)
    record.dropped["an unreadable message"] += 1
    record.interruptions += 1
    assert report.dropped == {"an unreadable message": 1}
    assert report.interruptions == 0
    with pytest.raises(AttributeError):
        report.gaps = 5
    line = str(report)
    assert line.isprintable()
    assert "stream_sid MZ1, call_sid CA1" in line
    assert "gap_secs 0.33, " in line
    assert "rest_answer" not in line


def test_sids_that_somebody_made_up_do_not_make_lines_of_their_own() -> None:
    line = str(CallRecord().report("MZ1\nERROR \x1b[31m", "C" * 10**6, 0.0))
    assert line.isprintable()
    assert "stream_sid 'MZ1\\nERROR \\x1b[31m', call_sid CCC" in line
    assert len(line) < 1000
