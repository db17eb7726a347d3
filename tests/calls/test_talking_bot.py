"""The talking bot, and the measurement of what a caller heard of it."""

import sys
import wave
from base64 import b64encode
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from phoning import EXAMPLES

from pipecat_twilio import ulaw

MODULES = ("caller", "conversation", "echo_bot", "listening", "call_recording", "talking_bot")

# Pipecat's TTS services import what Pipecat has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*AudioContext.*:DeprecationWarning")


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch):
    """The modules in examples/."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)


def message(at: float, samples: np.ndarray) -> tuple[float, dict]:
    """A message of audio, received at a time."""
    payload = b64encode(ulaw.encode(samples.astype("<i2").tobytes())).decode()
    return at, {"event": "media", "media": {"payload": payload}}


class TestWhatWasHeard:
    """Measures a sentence that begins at 1 s and is damaged in a known way."""

    def heard(self, examples, *pieces: tuple[float, float, float]):
        """Sends parts of the sentence, each as (second of the call, begin, end)."""
        said = examples.talking_bot.sentence(8000, 0)
        log = [
            message(at, said[round(begin * 8000) : round(end * 8000)]) for at, begin, end in pieces
        ]
        played = examples.listening.play(log, 0, 5)
        return examples.listening.compare(said, played, 1)

    def test_the_whole_sentence_is_heard_as_late_as_it_came(self, examples) -> None:
        heard = self.heard(examples, (1.25, 0, 1.42))
        assert heard.first_at == pytest.approx(1.25, abs=0.01)
        assert heard.last_at == pytest.approx(1.25 + 1.42, abs=0.02)
        assert (heard.lost_ms, heard.cut_ms, heard.silence_ms) == (0, 0, 0)

    @pytest.mark.parametrize("begin", [0.1, 0.3, 0.8, 0.93, 1.0])
    @pytest.mark.parametrize("lost", [0.06, 0.12])
    def test_missing_audio_inside_a_word_counts_as_lost(self, examples, begin, lost) -> None:
        heard = self.heard(examples, (1, 0, begin), (1, begin + lost, 1.42))
        assert heard.lost_ms == pytest.approx(1000 * lost, abs=2)
        assert (heard.cut_ms, heard.silence_ms) == (0, 0)

    @pytest.mark.parametrize("cut", [0.05, 0.1, 0.2])
    def test_missing_audio_at_the_end_counts_as_cut_off(self, examples, cut) -> None:
        heard = self.heard(examples, (1, 0, 1.42 - cut))
        assert heard.cut_ms == pytest.approx(1000 * cut, abs=25)
        assert (heard.lost_ms, heard.silence_ms) == (0, 0)

    @pytest.mark.parametrize("begin", [0.1, 0.3, 0.8, 0.93, 1.0])
    @pytest.mark.parametrize("late", [0.04, 0.3])
    def test_a_late_piece_is_silence_and_no_loss(self, examples, begin, late) -> None:
        heard = self.heard(examples, (1, 0, begin), (1 + begin + late, begin, 1.42))
        assert heard.silence_ms == pytest.approx(1000 * late, abs=1)
        assert heard.lost_ms + heard.cut_ms <= 2

    def test_early_audio_waits_for_its_turn(self, examples) -> None:
        heard = self.heard(examples, (1, 0, 0.5), (1.1, 0.5, 1), (1.2, 1, 1.42))
        assert (heard.lost_ms, heard.cut_ms, heard.silence_ms) == (0, 0, 0)

    def test_nothing_heard_has_no_figures(self, examples) -> None:
        assert np.isnan(self.heard(examples).first_at)


def test_an_interruption_empties_what_was_to_be_played(examples) -> None:
    log = [message(0, np.full(8000, 1000)), (0.5, {"event": "clear"}), message(0.6, np.ones(800))]
    played = examples.listening.play(log, 0, 1)
    spans = np.flatnonzero(np.diff(played.is_playing.astype(int))) + 1
    assert spans.tolist() == [4000, 4800, 5600]


def test_a_recording_has_both_sides_and_a_picture_with_its_gap(examples, tmp_path) -> None:
    tone = 8000 * np.sin(np.arange(800) / 3)
    mark = {"event": "mark", "mark": {"name": "<promise>"}}
    log = examples.caller.WireLog(
        sent=[message(i / 10, tone / 2) for i in range(10)],
        received=[message(0.2, tone), (0.3, mark), message(0.5, tone)],
    )
    recording = examples.call_recording.Recording.of(log)
    assert recording.gaps == [pytest.approx((0.3, 0.5), abs=0.001)]
    recording.save(tmp_path / "call")
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert both[100:700, 0].std() > 2000  # the caller is left, and speaks all the time
    assert both[100:700, 1].std() == 0
    assert both[1700:2300, 1].std() > 4000
    picture = ET.parse(tmp_path / "call.svg").getroot()
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "mark <promise> set" in texts


@pytest.mark.parametrize("tts", ["pipeline", "24 kHz", "resampled"])
async def test_with_everything_installed_nothing_is_lost_at_a_stall(examples, tts: str) -> None:
    answer = await one_answer_with_a_stall(examples, 2, tts, 8000)
    assert answer.lost_ms + answer.cut_ms <= 20


async def test_the_measurement_sees_what_pipecats_own_loses_at_a_stall(examples) -> None:
    answer = await one_answer_with_a_stall(examples, 0, "resampled", 8000)
    assert answer.lost_ms + answer.cut_ms >= 60


async def one_answer_with_a_stall(examples, bot: int, tts: str, rate: int):
    app = examples.talking_bot.create_app()
    conversation = examples.conversation
    with (
        conversation.built_as(conversation.BOTS[bot]) as serializer,
        examples.caller.serve_in_thread(app) as port,
    ):
        call = await conversation.converse(
            port,
            app,
            1,
            serializer=serializer,
            tts=tts,
            in_rate=rate,
            out_rate=rate,
            stalls_from=0,
        )
    (answer,) = call.answers()
    return answer
