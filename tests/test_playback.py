"""The estimate of what is yet to be played, by the times that the test tells."""

import pytest

from pipecat_twilio.playback import Playback

SPEECH, SILENCE = b"\x10", b"\xff"


def test_nothing_sent_is_nothing_to_wait_for() -> None:
    assert Playback(8000).remaining_secs(50) == 0


def test_audio_is_played_in_order_and_in_real_time() -> None:
    playback = Playback(8000)
    playback.add(SPEECH * 8000, 50)
    playback.add(SPEECH * 4000, 50)
    assert playback.remaining_secs(50) == pytest.approx(1.5)
    assert playback.remaining_secs(51) == pytest.approx(0.5)
    assert playback.remaining_secs(61) == 0
    playback.add(SPEECH * 800, 61)
    assert playback.remaining_secs(61) == pytest.approx(0.1)


def test_trailing_silence_does_not_count_but_silence_before_speech_does() -> None:
    playback = Playback(8000)
    playback.add(SPEECH * 800 + SILENCE * 800, 50)
    playback.add(SILENCE * 16000 + b"\x7f" * 16000, 50)
    assert playback.remaining_secs(50) == pytest.approx(0.1)
    playback.add(SPEECH * 800, 50)
    assert playback.remaining_secs(50) == pytest.approx(0.1 + 0.1 + 4 + 0.1)


def test_clear_leaves_nothing_to_play() -> None:
    playback = Playback(8000)
    playback.add(SPEECH * 80000, 50)
    playback.clear()
    assert playback.remaining_secs(50) == 0
    playback.add(SPEECH * 800, 50)
    assert playback.remaining_secs(50) == pytest.approx(0.1)


def test_either_code_of_silence_counts_as_silence_and_no_other_does() -> None:
    for code in range(256):
        playback = Playback(8000)
        playback.add(SPEECH * 800 + bytes([code]) * 800, 50)
        silent = code in (0xFF, 0x7F)
        assert playback.remaining_secs(50) == pytest.approx(0.1 if silent else 0.2)


def test_what_is_no_bytes_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="ulaw"):
        Playback(8000).add(None, 50)
