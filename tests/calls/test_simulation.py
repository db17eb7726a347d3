"""What the calls are simulated with: TwiML, the player, what was heard, the recording."""

import re
import wave
from base64 import b64encode
from xml.etree import ElementTree as ET

import demo
import numpy as np
import pytest
from caller import WireLog, place_call
from conversation import BOTS, built_as, converse
from dialing import CalledBot, CallError, read_twiml
from listening import compare, play
from local_services import sentence
from phone.messages import RefusedMessageError, read
from phone.response_times import ResponseTimes
from player import Player
from recording import Recording
from serving import serve_in_thread
from streamdouble.scenario import Scenario, Wait
from talking_bot import create_app
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse

from pipecat_twilio import ulaw


class TestDialing:
    """Checked with Twilio's own library."""

    @pytest.mark.parametrize("url", ["http://localhost:1/a?b=c", "https://bot.example.com/"])
    def test_a_webhooks_form_is_signed(self, url: str) -> None:
        form = {"To": "+1 2", "CallSid": "CA1", "From": "é"}
        signature = CalledBot(url, auth_token="a").signature(url, form)["X-Twilio-Signature"]
        assert RequestValidator("a").validate(url, form, signature)
        assert not RequestValidator("b").validate(url, form, signature)

    def test_the_stream_and_its_parameters_are_found(self) -> None:
        response = VoiceResponse()
        response.say("Hello")
        stream = Connect().stream(url="wss://bot.example.com/ws")
        stream.parameter(name="first & last", value='"é"')
        response.append(Connect().append(stream))
        url, parameters = read_twiml(str(response), "https://bot.example.com/voice")
        assert url == "wss://bot.example.com/ws"
        assert parameters == {"first & last": '"é"'}

    @pytest.mark.parametrize(("base", "scheme"), [("http", "ws"), ("https", "wss")])
    def test_a_relative_address_is_the_webhooks(self, base: str, scheme: str) -> None:
        twiml = '<Response><Connect><Stream url="/ws"/></Connect></Response>'
        assert read_twiml(twiml, f"{base}://a:1/voice")[0] == f"{scheme}://a:1/ws"

    @pytest.mark.parametrize(
        ("twiml", "sentence"),
        [
            ("", "did not answer with XML"),
            ("<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", "a document type, not TwiML"),
            ("<Response/>", "no <Connect><Stream url=...>"),
            ("<Response><Start><Stream url='wss://a'/></Start></Response>", "no <Connect><Stream"),
            ("<R><Connect><Stream url='wss://a'/></Connect></R>", "no <Connect><Stream"),
            *(
                (f"<Response><Connect><Stream url='{url}'/></Connect></Response>", sentence)
                for url, sentence in (
                    ("https://a", "is not wss://: https://a"),
                    ("wss://[a", "is not valid: wss://[a."),
                    ("wss://a?b", "query string, which Twilio does not support"),
                )
            ),
        ],
    )
    def test_other_answers_are_refused_with_a_sentence(self, twiml: str, sentence: str) -> None:
        with pytest.raises(CallError, match=re.escape(sentence)):
            read_twiml(twiml, "https://bot.example.com/")


class TestThePlayer:
    """The test sets the time, in seconds since the call began."""

    def heard(self, player: Player) -> bytes:
        return player.take(10_000).ulaw.rstrip(b"\xff")

    def test_audio_plays_in_order_when_it_is_there_and_its_turn(self) -> None:
        player = Player(100.0, hold_secs=0.02)
        assert player.add(b"a" * 200, 100.01) == 0
        assert player.add(b"b" * 40, 100.012) == 0
        assert player.take(160) == (b"\xff" * 160, bytes(160))
        assert player.take(160).ulaw == b"\xff" * 80 + b"a" * 80
        assert self.heard(player) == b"a" * 120 + b"b" * 40

    def test_a_message_that_is_up_to_20_ms_late_leaves_no_gap(self) -> None:
        player = Player(0.0, hold_secs=0.02)
        for message in range(5):
            assert player.add(b"a" * 160, message * 0.02 + (0.0199 if message else 0)) == 0
        assert self.heard(player).strip(b"\xff") == b"a" * 800

    def test_where_it_ran_empty_there_is_a_gap(self) -> None:
        player = Player(0.0)
        player.add(b"a" * 160, 0.0)
        assert player.take(400).is_playing == b"\1" * 160 + bytes(240)
        assert player.add(b"b" * 160, 0.06) == pytest.approx(0.04)
        assert self.heard(player) == b"\xff" * 80 + b"b" * 160

    def test_a_mark_comes_back_when_the_audio_before_it_was_played(self) -> None:
        player = Player(0.0)
        player.mark("at once")
        assert player.played_marks(0.0) == ["at once"]
        player.add(b"a" * 800, 0.0)
        player.mark("later")
        player.add(b"a" * 800, 0.0)
        player.mark("last")
        assert player.played_marks(0.099) == []
        assert player.played_marks(0.101) == ["later"]
        assert player.played_marks(9.0) == ["last"]

    def test_a_clear_silences_at_once_and_returns_the_marks(self) -> None:
        player = Player(0.0)
        player.add(b"a" * 8000, 0.0)
        player.mark("one")
        player.mark("two")
        player.take(160)
        assert player.clear(0.03) == ["one", "two"]
        assert player.add(b"b", 0.5) == 0  # what an interruption leaves is no gap
        assert self.heard(player) == b"a" * 80 + b"\xff" * 3760 + b"b"
        player.mark("at once")
        assert player.played_marks(0.501) == ["at once"]


class TestReading:
    """Twilio accepts three messages with exactly the documented keys, and warns of any other."""

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ("garbage", "malformed"),
            ("[]", "object"),
            ('{"event": "dtmf", "streamSid": "MZ1"}', "dtmf"),
            ('{"event": "clear"}', "streamSid"),
            ('{"event": "clear", "streamSid": "MZ2"}', "MZ2"),
            ('{"event": "clear", "streamSid": "MZ1", "extra": 1}', "extra"),
            ('{"event": "mark", "streamSid": "MZ1", "mark": {"name": 1}}', "int"),
            ('{"event": "media", "streamSid": "MZ1", "media": {}}', "payload"),
            ('{"event": "media", "streamSid": "MZ1", "media": {"payload": "?"}}', "base64"),
            ('{"event": "media", "streamSid": "MZ1", "media": {"payload": "", "x": 1}}', "x"),
            ("[" * 100_000, "array"),
            ('"\ud800"', "surrogates"),
        ],
    )
    def test_any_other_message_gets_twilios_warning(self, data: str, text: str) -> None:
        with pytest.raises(RefusedMessageError, match=text) as error:
            read(data, "MZ1")
        assert error.value.code == 31951


@pytest.mark.parametrize(
    ("caller", "bot", "delays_ms"),
    [
        ("##########....................", ".........................#####", [300]),
        ("##########....................", "..........##########..........", [0]),
        # two turns, with a pause inside the caller's first
        ("######..######" + "." * 36, "." * 26 + "#" * 24, [240]),
        (
            ("######" + "." * 24) * 2,
            ("." * 16 + "######" + "." * 8) + ("." * 21 + "######" + "." * 3),
            [200, 300],
        ),
        # an echo, 100 ms later
        ("######..####...#####" + "." * 20, ".....######..####...#####" + "." * 15, []),
        ("." * 30, "..........####################", []),  # the bot speaks first
        ("###" + "." * 27, "." * 15 + "#" * 15, []),  # a click is not speech
        ("#" * 30, "." * 15 + "#" * 15, []),  # the bot interrupts
        # its second sentence is not a second answer
        ("######" + "." * 44, "." * 16 + "####" + "." * 15 + "#" * 15, [200]),
    ],
)
def test_an_answer_is_timed_from_the_end_of_speech(caller, bot, delays_ms) -> None:
    steps = {"#": np.full(160, 9000.0), ".": np.zeros(160)}  # loud and quiet, 20 ms
    times = ResponseTimes()
    told = [times.add(steps[c], steps[b]) for c, b in zip(caller, bot, strict=True)]
    assert [delay for delay in told if delay is not None] == times.delays_ms == delays_ms
    if delays_ms:
        assert times.median_ms == np.median(delays_ms)


def message(at: float, samples: np.ndarray) -> tuple[float, dict]:
    """A message of audio, received at a time."""
    payload = b64encode(ulaw.encode(samples.astype("<i2").tobytes())).decode()
    return at, {"event": "media", "media": {"payload": payload}}


@pytest.mark.parametrize(
    ("pieces", "lost_ms", "cut_ms", "silence_ms"),
    [
        ([(1, 0, 1.42)], 0, 0, 0),
        *(([(1, 0, at), (1, at + 0.06, 1.42)], 60, 0, 0) for at in (0.1, 0.3, 0.8, 0.93, 1.0)),
        *(([(1, 0, at), (1, at + 0.12, 1.42)], 120, 0, 0) for at in (0.1, 0.3, 0.8, 0.93, 1.0)),
        *(([(1, 0, 1.42 - cut / 1000)], 0, cut, 0) for cut in (50, 100, 200)),
        *(([(1, 0, at), (1.3 + at, at, 1.42)], 0, 0, 300) for at in (0.1, 0.3, 0.8, 0.93, 1.0)),
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


def test_nothing_heard_has_no_figures() -> None:
    assert np.isnan(compare(sentence(8000, 0), play([], 0, 5), 1).first_at)


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


@pytest.mark.parametrize(
    ("bot", "tts", "least_ms", "most_ms"),
    [
        *((BOTS[2], tts, 0, 20) for tts in ("pipeline", "24 kHz", "resampled")),
        (BOTS[0], "resampled", 60, 200),  # so the measurement sees what is lost
    ],
)
async def test_what_is_lost_at_a_stall_of_tts(bot, tts, least_ms, most_ms) -> None:
    app = create_app()
    rates = {"in_rate": 8000, "out_rate": 8000}
    with built_as(bot) as serializer, serve_in_thread(app) as port:
        call = await converse(port, app, 1, serializer=serializer, tts=tts, stalls_from=0, **rates)
    (answer,) = call.answers()
    assert least_ms <= answer.lost_ms + answer.cut_ms <= most_ms


class TestTheDemo:
    """Calls a bot that is running, and names its picture or the fault in a sentence."""

    async def run(self, monkeypatch, tmp_path, url: str) -> int:
        monkeypatch.setattr("sys.argv", ["demo.py", url, "--out", str(tmp_path)])
        monkeypatch.setattr(demo, "Scenario", lambda *_: Scenario("wait", [Wait(0.5)]))
        monkeypatch.setattr(demo.logger, "remove", lambda: None)
        monkeypatch.setattr(demo.logger, "add", lambda *_, **__: None)
        return await demo.main()

    async def test_a_bot_is_called_and_recorded(
        self, echo_bot, monkeypatch, tmp_path, capsys
    ) -> None:
        async with echo_bot() as webhook:
            assert await self.run(monkeypatch, tmp_path, webhook) == 0
        assert {path.name for path in tmp_path.iterdir()} == {"reply.wav", "reply.svg"}
        assert capsys.readouterr().out.endswith(f"\nfile://{tmp_path}/reply.svg\n")

    @pytest.mark.parametrize(
        ("scheme", "words"),
        [
            ("ws", "is not a Media Streams server"),
            ("wss", "no call: "),
            ("ftp", "the bot's address must be"),
        ],
    )
    async def test_an_address_without_a_bot(
        self, echo_bot, monkeypatch, tmp_path, capsys, scheme: str, words: str
    ) -> None:
        async with echo_bot() as webhook:
            url = webhook.replace("http", scheme)
            assert await self.run(monkeypatch, tmp_path, url) == 2
            assert words in capsys.readouterr().out
        assert await self.run(monkeypatch, tmp_path, webhook) == 2
        assert "nothing listens at" in capsys.readouterr().out

    async def test_a_bot_that_sends_nothing(self, monkeypatch) -> None:
        scenario = Scenario("wait", [Wait(0.1)])
        with serve_in_thread(create_app()) as port, pytest.raises(CallError, match="sent nothing"):
            await place_call(f"ws://127.0.0.1:{port}/", scenario)
