"""The estimate of what is yet to be played, by a clock that the test moves."""

import pytest

from pipecat_twilio.playback import Playback

SPEECH, SILENCE = b"\x10", b"\xff"


class Clock:
    """A clock that stands where it is put."""

    secs = 50.0

    def __call__(self) -> float:
        return self.secs


def test_nothing_sent_is_nothing_to_wait_for() -> None:
    assert Playback(8000, Clock()).remaining_secs == 0


def test_audio_is_played_in_order_and_in_real_time() -> None:
    clock = Clock()
    playback = Playback(8000, clock)
    playback.add(SPEECH * 8000)
    playback.add(SPEECH * 4000)
    assert playback.remaining_secs == pytest.approx(1.5)
    clock.secs += 1
    assert playback.remaining_secs == pytest.approx(0.5)
    clock.secs += 10
    assert playback.remaining_secs == 0
    playback.add(SPEECH * 800)
    assert playback.remaining_secs == pytest.approx(0.1)


def test_trailing_silence_does_not_count_but_silence_before_speech_does() -> None:
    playback = Playback(8000, Clock())
    playback.add(SPEECH * 800 + SILENCE * 800)
    playback.add(SILENCE * 16000 + b"\x7f" * 16000)
    assert playback.remaining_secs == pytest.approx(0.1)
    playback.add(SPEECH * 800)
    assert playback.remaining_secs == pytest.approx(0.1 + 0.1 + 4 + 0.1)


def test_clear_leaves_nothing_to_play() -> None:
    playback = Playback(8000, Clock())
    playback.add(SPEECH * 80000)
    playback.clear()
    assert playback.remaining_secs == 0
    playback.add(SPEECH * 800)
    assert playback.remaining_secs == pytest.approx(0.1)
