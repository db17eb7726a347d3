"""The estimate of what Twilio has yet to play, at times that the test sets."""

from math import inf

import pytest

from pipecat_twilio.twilio.playback import Playback

SPEECH, SILENCE = b"\x10", b"\xff"


def test_audio_is_played_in_order_and_in_real_time() -> None:
    playback = Playback()
    assert playback.unplayed_secs(50) == playback.unplayed_sound_secs(50) == 0
    playback.add(SPEECH * 8000, 8000, 50)
    playback.add(SPEECH * 4000, 8000, 50)
    assert [playback.unplayed_secs(now) for now in (50, 51, 61)] == [1.5, 0.5, 0]
    playback.add(SPEECH * 800, 8000, 61)
    assert playback.unplayed_secs(61) == pytest.approx(0.1)
    playback.clear(61)
    assert playback.unplayed_secs(61) == playback.unplayed_sound_secs(61) == 0


def test_each_payload_is_played_at_its_own_rate() -> None:
    playback = Playback()
    playback.add(SPEECH * 8000, 16000, 50)
    playback.add(SPEECH * 800 + SILENCE * 800, 8000, 50)
    assert playback.unplayed_secs(50) == pytest.approx(0.7)
    assert playback.unplayed_sound_secs(50) == pytest.approx(0.6)
    playback.add(SILENCE * 8000, 16000, 50)
    assert playback.unplayed_sound_secs(50) == pytest.approx(0.6)
    playback.add(SPEECH * 800, 8000, 50)  # the silence before it is waited for
    assert playback.unplayed_sound_secs(50) == playback.unplayed_secs(50) == pytest.approx(1.3)


def test_only_the_two_codes_of_silence_are_silence() -> None:
    for code in range(256):
        playback = Playback()
        playback.add(SPEECH * 800 + bytes([code]) * 800, 8000, 50)
        is_silent = code in (0xFF, 0x7F)
        assert playback.unplayed_sound_secs(50) == pytest.approx(0.1 if is_silent else 0.2)


def test_audio_beyond_the_600_s_that_twilio_buffers_does_not_count() -> None:
    playback = Playback()
    for _ in range(1000):
        playback.add(SPEECH * 8000, 8000, 50)
    # The last payload that fits may end up to its own second later.
    assert 600 < playback.unplayed_secs(50) <= 601
    assert playback.add(SPEECH, 8000, 50) == 0


def test_add_returns_how_long_the_buffer_had_been_empty() -> None:
    playback = Playback()
    assert playback.add(SPEECH * 800, 8000, 0.5) == inf
    assert playback.add(SPEECH * 800, 8000, 0.55) == 0
    assert playback.add(SPEECH * 800, 8000, 0.8) == pytest.approx(0.1)
    playback.clear(0.8)
    assert playback.add(SPEECH * 800, 8000, 0.85) == inf


class TestMarks:
    """Whether the audio before a mark was played, or cleared."""

    def test_a_mark_whose_audio_was_played_before_a_clear_is_not_cleared(self) -> None:
        playback = Playback()
        playback.add_mark("before all audio")
        for name in ("played", "same name", "same name"):
            playback.add(SPEECH * 8000, 8000, 50)
            playback.add_mark(name)
        playback.clear(52)  # the echo of the first of the same name is on its way
        playback.add_mark("same name")
        # Twilio sends them back in order.
        names = ["before all audio", "played", *["same name"] * 3]
        assert [playback.take_mark(name) for name in names] == [False, False, False, True, False]

    def test_a_second_clear_does_not_change_what_the_first_one_cleared(self) -> None:
        playback = Playback()
        playback.add(SPEECH * 8000, 8000, 50)
        playback.add_mark("a")
        playback.clear(50.5)
        playback.clear(60)
        assert playback.take_mark("a") is True
        assert playback.take_mark("a") is False  # nobody sent another

    def test_the_oldest_of_1001_marks_is_forgotten(self) -> None:
        playback = Playback()
        playback.add(SPEECH * 8000, 8000, 50)
        for i in range(1001):
            playback.add_mark(str(i))
        playback.clear(50)
        assert [playback.take_mark(name) for name in ("0", "1", "1000")] == [False, True, True]
