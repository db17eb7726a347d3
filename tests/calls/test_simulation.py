"""What the calls are simulated with: TwiML, the player, what was heard, the recording."""

import re
import wave
from base64 import b64encode
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from caller import WireLog
from conversation import BOTS, built_as, converse
from dialing import CallError, read_twiml
from listening import compare, play
from local_services import sentence
from player import Player
from recording import Recording
from serving import serve_in_thread
from talking_bot import create_app
from twilio.twiml.voice_response import Connect, VoiceResponse

from pipecat_twilio import ulaw

CONNECT = "<Response><Connect><Stream url='{}'/></Connect></Response>"


class TestDialing:
    """Checked with Twilio's own library."""

    def test_the_stream_and_its_parameters_are_found(self) -> None:
        response = VoiceResponse()
        response.say("Hello")
        stream = Connect().stream(url="/ws")
        stream.parameter(name="first & last", value='"é"')
        response.append(Connect().append(stream))
        for base, scheme in (("http", "ws"), ("https", "wss")):
            url, parameters = read_twiml(str(response), f"{base}://bot.example.com:1/voice")
            assert url == f"{scheme}://bot.example.com:1/ws"
            assert parameters == {"first & last": '"é"'}

    @pytest.mark.parametrize(
        ("twiml", "sentence"),
        [
            ("", "did not answer with XML"),
            ("<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", "a document type, not TwiML"),
            ("<Response><Start><Stream url='wss://a'/></Start></Response>", "no <Connect><Stream"),
            (CONNECT.format("https://a"), "is not wss://: https://a"),
            (CONNECT.format("wss://[a"), "is not valid: wss://[a."),
            (CONNECT.format("wss://a?b"), "query string, which Twilio does not support"),
        ],
    )
    def test_other_answers_are_refused_with_a_sentence(self, twiml: str, sentence: str) -> None:
        with pytest.raises(CallError, match=re.escape(sentence)):
            read_twiml(twiml, "https://bot.example.com/")


class TestThePlayer:
    """The test sets the time, in seconds since the call began."""

    def heard(self, player: Player) -> bytes:
        return player.take(10_000).ulaw.rstrip(b"\xff")

    @pytest.mark.parametrize("late_secs", [0, 0.0199])
    def test_a_message_that_is_up_to_20_ms_late_leaves_no_gap(self, late_secs: float) -> None:
        player = Player(100.0, hold_secs=0.02)
        assert player.add(b"a" * 200, 100.0) == 0
        assert player.add(b"b" * 160, 100.025 + late_secs) == 0
        assert player.take(160) == (b"\xff" * 160, bytes(160))
        assert self.heard(player) == b"a" * 200 + b"b" * 160

    def test_a_mark_comes_back_when_the_audio_before_it_was_played(self) -> None:
        player = Player(0.0)
        player.mark("at once")
        assert player.played_marks(0.0) == ["at once"]
        player.add(b"a" * 800, 0.0)
        player.mark("later")
        player.add(b"a" * 800, 0.0)
        assert player.played_marks(0.099) == []
        assert player.played_marks(0.101) == ["later"]

    def test_a_clear_silences_at_once_and_returns_the_marks(self) -> None:
        player = Player(0.0)
        player.add(b"a" * 8000, 0.0)
        player.mark("one")
        player.take(160)
        assert player.clear(0.03) == ["one"]
        assert player.add(b"b", 0.5) == 0  # what an interruption leaves is no gap
        assert self.heard(player) == b"a" * 80 + b"\xff" * 3760 + b"b"


def message(at: float, samples: np.ndarray) -> tuple[float, dict]:
    """A message of audio, received at a time."""
    payload = b64encode(ulaw.encode(samples.astype("<i2").tobytes())).decode()
    return at, {"event": "media", "media": {"payload": payload}}


@pytest.mark.parametrize(
    ("pieces", "lost_ms", "cut_ms", "silence_ms"),
    [
        ([(1, 0, 1.42)], 0, 0, 0),
        *(([(1, 0, at), (1, at + 0.06, 1.42)], 60, 0, 0) for at in (0.1, 0.93)),
        *(([(1, 0, at), (1, at + 0.12, 1.42)], 120, 0, 0) for at in (0.3, 0.8)),
        *(([(1, 0, 1.42 - cut / 1000)], 0, cut, 0) for cut in (50, 200)),
        *(([(1, 0, at), (1.3 + at, at, 1.42)], 0, 0, 300) for at in (0.1, 0.93)),
        ([(1, 0, 0.5), (1.1, 0.5, 1), (1.2, 1, 1.42)], 0, 0, 0),  # early audio waits for its turn
    ],
)
def test_what_was_heard_of_a_sentence_is_measured(pieces, lost_ms, cut_ms, silence_ms) -> None:
    """Parts of a sentence that begins at 1 s, each as (second of the call, begin, end)."""
    said = sentence(8000, 0)
    log = [message(at, said[round(begin * 8000) : round(end * 8000)]) for at, begin, end in pieces]
    heard = compare(said, play(log, 0, 5), 1)
    assert heard.first_at == pytest.approx(1, abs=0.01)
    assert heard.last_at == pytest.approx(2.42 + (silence_ms - lost_ms - cut_ms) / 1000, abs=0.03)
    assert heard.lost_ms == pytest.approx(lost_ms, abs=2)
    assert heard.cut_ms == pytest.approx(cut_ms, abs=25 if cut_ms else 0)
    assert heard.silence_ms == pytest.approx(silence_ms, abs=1)


def test_a_recording_has_both_sides_and_a_picture_with_its_gap(tmp_path) -> None:
    tone = 8000 * np.sin(np.arange(800) / 3)
    mark = {"event": "mark", "mark": {"name": "<promise>"}}
    clear = (0.55, {"event": "clear"})  # cuts the last tone in half
    log = WireLog(
        sent=[message(i / 10, tone / 2) for i in range(10)],
        received=[message(0.2, tone), (0.3, mark), message(0.5, tone), clear, message(0.7, tone)],
    )
    recording = Recording.of(log)
    assert recording.gaps == [pytest.approx((0.3, 0.5), abs=0.001)]
    assert recording.save(tmp_path / "call") == tmp_path / "call.svg"
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert both[100:700, 0].std() > 2000  # the caller is left, and speaks all the time
    assert both[100:700, 1].std() == both[4500:5500, 1].std() == 0
    assert both[1700:2300, 1].std() > 4000
    picture = ET.parse(tmp_path / "call.svg").getroot()
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"mark <promise> set", "interruption"} <= set(texts)


@pytest.mark.parametrize(("bot", "lost_ms"), [(BOTS[2], (0, 20)), (BOTS[0], (60, 200))])
async def test_what_is_lost_at_a_stall_of_tts(bot: str, lost_ms: tuple[int, int]) -> None:
    app = create_app()
    with built_as(bot) as serializer, serve_in_thread(app) as port:
        options = {"in_rate": 8000, "out_rate": 8000, "tts": "resampled", "stalls_from": 0}
        call = await converse(port, app, 1, serializer=serializer, **options)
    (answer,) = call.answers()
    assert lost_ms[0] <= answer.lost_ms + answer.cut_ms <= lost_ms[1]
