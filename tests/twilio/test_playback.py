"""The estimate of what Twilio has yet to play, at times that the test sets."""

import tracemalloc
from math import inf

import pytest
from streams import traced

from pipecat_twilio.twilio.playback import Playback

SPEECH, SILENCE = b"\x10", b"\xff"


def test_nothing_sent_is_nothing_to_wait_for() -> None:
    assert Playback().remaining_sound_secs(50) == 0


def test_audio_is_played_in_order_and_in_real_time() -> None:
    playback = Playback()
    playback.add(SPEECH * 8000, 8000, 50)
    playback.add(SPEECH * 4000, 8000, 50)
    assert playback.remaining_sound_secs(50) == pytest.approx(1.5)
    assert playback.remaining_sound_secs(51) == pytest.approx(0.5)
    assert playback.remaining_sound_secs(61) == 0
    playback.add(SPEECH * 800, 8000, 61)
    assert playback.remaining_sound_secs(61) == pytest.approx(0.1)


def test_everything_counts_for_the_time_until_all_is_played() -> None:
    playback = Playback()
    playback.add(SPEECH * 800 + SILENCE * 800, 8000, 50)
    playback.add(SILENCE * 1600, 8000, 50)
    assert playback.remaining_secs(50) == pytest.approx(0.4)
    assert playback.remaining_secs(50.3) == pytest.approx(0.1)
    playback.clear()
    assert playback.remaining_secs(50) == 0


def test_trailing_silence_does_not_count_but_silence_before_speech_does() -> None:
    playback = Playback()
    playback.add(SPEECH * 800 + SILENCE * 800, 8000, 50)
    playback.add(SILENCE * 16000 + b"\x7f" * 16000, 8000, 50)
    assert playback.remaining_sound_secs(50) == pytest.approx(0.1)
    playback.add(SPEECH * 800, 8000, 50)
    assert playback.remaining_sound_secs(50) == pytest.approx(0.1 + 0.1 + 4 + 0.1)


def test_clear_leaves_nothing_to_play() -> None:
    playback = Playback()
    playback.add(SPEECH * 80000, 8000, 50)
    playback.clear()
    assert playback.remaining_sound_secs(50) == 0
    playback.add(SPEECH * 800, 8000, 50)
    assert playback.remaining_sound_secs(50) == pytest.approx(0.1)


def test_no_more_counts_than_twilio_buffers() -> None:
    playback = Playback()
    for _ in range(1000):
        playback.add(SPEECH * 8000, 8000, 50)
    # The last payload that fits may end up to its own second later.
    assert 600 < playback.remaining_secs(50) <= 601
    assert playback.add(SPEECH, 8000, 50) == 0


def test_either_code_of_silence_counts_as_silence_and_no_other_does() -> None:
    for code in range(256):
        playback = Playback()
        playback.add(SPEECH * 800 + bytes([code]) * 800, 8000, 50)
        silent = code in (0xFF, 0x7F)
        assert playback.remaining_sound_secs(50) == pytest.approx(0.1 if silent else 0.2)


def test_adding_tells_how_long_there_was_nothing_to_play() -> None:
    playback = Playback()
    assert playback.add(SPEECH * 800, 8000, 0.5) == inf
    assert playback.add(SPEECH * 800, 8000, 0.55) == 0
    assert playback.add(SPEECH * 800, 8000, 0.8) == pytest.approx(0.1)
    playback.clear()
    assert playback.add(SPEECH * 800, 8000, 0.85) == inf


def test_each_payload_is_played_at_its_own_rate() -> None:
    playback = Playback()
    playback.add(SPEECH * 8000, 16000, 50)
    playback.add(SPEECH * 800 + SILENCE * 800, 8000, 50)
    assert playback.remaining_secs(50) == pytest.approx(0.7)
    assert playback.remaining_sound_secs(50) == pytest.approx(0.6)
    playback.add(SILENCE * 8000, 16000, 50)
    assert playback.remaining_sound_secs(50) == pytest.approx(0.6)


class TestMarks:
    """Whether the audio before a mark was played, or cleared."""

    def test_a_mark_that_was_out_at_a_clear_was_cleared(self) -> None:
        playback = Playback()
        for name in ("a", "b", "b"):
            playback.add_mark(name)
        assert playback.take_mark("a") is False
        playback.clear()
        playback.add_mark("b")
        # Twilio sends them back in order: the cleared ones first.
        assert [playback.take_mark("b") for _ in range(3)] == [True, True, False]

    def test_a_mark_is_cleared_by_one_clear_only(self) -> None:
        playback = Playback()
        playback.add_mark("a")
        playback.clear()
        assert playback.take_mark("a") is True
        playback.clear()
        playback.add_mark("a")
        assert playback.take_mark("a") is False

    def test_a_mark_that_nobody_sent_was_not_cleared(self) -> None:
        playback = Playback()
        playback.clear()
        assert playback.take_mark("a") is False

    def test_the_oldest_of_1001_marks_is_forgotten(self) -> None:
        playback = Playback()
        for i in range(1001):
            playback.add_mark(str(i))
        playback.clear()
        assert playback.take_mark("0") is False
        assert playback.take_mark("1") is True
        for _ in range(1000):
            playback.add_mark("new")
        playback.clear()
        assert playback.take_mark("2") is False

    def test_marks_take_no_more_memory_if_the_bot_is_never_interrupted(self) -> None:
        playback = Playback()
        with traced():
            for i in range(100_000):
                playback.add_mark(f"mark {i}")
            assert tracemalloc.get_traced_memory()[0] < 200_000  # 6 MB in all
