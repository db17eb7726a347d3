"""The parts of the phone in the browser: Twilio's messages, the player, response times."""

import io
import json
import re
import wave

import numpy as np
import pytest
import recording
from dialing import Bot, CannotCallError, read_twiml
from phoning import ACCOUNT_SID, TOKEN, CalledBot, bot_that, page_of, phone_to
from pipecat.frames.frames import InterruptionFrame, OutputAudioRawFrame
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer
from player import Player
from response_times import ResponseTimes
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse
from wire import RefusedMessageError, read

from pipecat_twilio import messages

LOUD, QUIET = np.full(160, 9000, "<i2").tobytes(), bytes(320)


class TestSigning:
    """Checked with Twilio's own validator."""

    @pytest.mark.parametrize("url", ["http://localhost:1/a?b=c", "https://bot.example.com/"])
    def test_a_webhooks_form_is_signed(self, url: str) -> None:
        bot = Bot(url, ACCOUNT_SID, auth_token=TOKEN)
        form = {"To": "+1 2", "CallSid": "CA1", "From": "é"}
        signature = bot.signature(url, form)["X-Twilio-Signature"]
        assert RequestValidator(TOKEN).validate(url, form, signature)
        assert not RequestValidator("f" * 32).validate(url, form, signature)

    async def test_a_stream_is_signed(self) -> None:
        headers = {}

        async def talk(bot: CalledBot) -> None:
            headers.update(bot.request.headers)

        async with (
            bot_that(talk) as url,
            phone_to(url, auth_token=TOKEN) as phone,
            page_of(phone) as page,
        ):
            await page.order("call", rate=8000)
            await page.event("ended")
        assert RequestValidator(TOKEN).validate(url, {}, headers["X-Twilio-Signature"])
        assert "Sec-WebSocket-Extensions" not in headers  # as Twilio, no compression


class TestTwiML:
    """Built with Twilio's own library."""

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
            ("", "no XML"),
            ("Hello", "no XML"),
            ("<Response/>", "no <Connect><Stream url=...>"),
            ("<Response><Start><Stream url='wss://a'/></Start></Response>", "no <Connect><Stream"),
            ("<Response><Connect><Stream/></Connect></Response>", "no <Connect><Stream"),
            ("<R><Connect><Stream url='wss://a'/></Connect></R>", "no <Connect><Stream"),
            (
                "<Response><Connect><Stream url='https://a'/></Connect></Response>",
                "is not wss://: https://a",
            ),
            (
                "<Response><Connect><Stream url='wss://[a'/></Connect></Response>",
                "address in the bot's TwiML is none: wss://[a.",
            ),
            (
                "<Response><Connect><Stream url='wss://a?b'/></Connect></Response>",
                "query string, which Twilio does not support",
            ),
            ("<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", "a document type, not TwiML"),
        ],
    )
    def test_other_answers_are_refused_with_a_sentence(self, twiml: str, sentence: str) -> None:
        with pytest.raises(CannotCallError, match=re.escape(sentence)):
            read_twiml(twiml, "https://bot.example.com/")


class TestReading:
    """Twilio accepts three messages with exactly the documented keys, and warns of any other."""

    async def test_messages_of_pipecat_and_this_package_are_read(self) -> None:
        serializer = PipecatSerializer(
            "MZ1", params=PipecatSerializer.InputParams(auto_hang_up=False)
        )
        serializer._sample_rate = 8000
        frames = [OutputAudioRawFrame(LOUD, 8000, 1), InterruptionFrame()]
        for frame in frames:
            read(await serializer.serialize(frame), "MZ1")
        read(messages.media("MZ1", b"\xff" * 160), "MZ1")
        read(messages.clear("MZ1"), "MZ1")
        assert read(json.dumps(messages.mark("MZ1", "a")), "MZ1").mark.name == "a"

    @pytest.mark.parametrize(
        ("code", "data", "text"),
        [
            (31950, b"binary", "binary"),
            (31951, "garbage", "malformed"),
            (31951, "[]", "object"),
            (31951, "{}", "event"),
            (31951, '{"event": "dtmf", "streamSid": "MZ1"}', "dtmf"),
            (31951, '{"event": "clear"}', "streamSid"),
            (31951, '{"event": "clear", "streamSid": "MZ2"}', "MZ2"),
            (31951, '{"event": "clear", "streamSid": "MZ1", "extra": 1}', "extra"),
            (31951, '{"event": "mark", "streamSid": "MZ1"}', "mark"),
            (31951, '{"event": "mark", "streamSid": "MZ1", "mark": {"name": 1}}', "int"),
            (31951, '{"event": "media", "streamSid": "MZ1", "media": {}}', "payload"),
            (31951, '{"event": "media", "streamSid": "MZ1", "media": {"payload": "?"}}', "base64"),
            (
                31951,
                '{"event": "media", "streamSid": "MZ1", "media": {"payload": "AA==", "x": 1}}',
                "x",
            ),
            (31951, "[" * 100_000, "array"),
            (31951, '"\ud800"', "surrogates"),
        ],
    )
    def test_any_other_message_gets_twilios_warning(
        self, code: int, data: str | bytes, text: str
    ) -> None:
        with pytest.raises(RefusedMessageError, match=text) as error:
            read(data, "MZ1")
        assert error.value.code == code


class TestThePlayer:
    """The test sets the time, in seconds since the beginning of the first step."""

    def heard(self, player: Player) -> bytes:
        return b"".join(iter(player.take_step, None))

    def test_audio_plays_in_order_from_20_ms_after_it_came(self) -> None:
        player = Player(0.0)
        player.add(b"a" * 200, 0.01)
        player.add(b"b" * 40, 0.012)
        assert self.heard(player) == b"\xff" * 240 + b"a" * 200 + b"b" * 40

    def test_a_message_that_is_up_to_20_ms_late_leaves_no_gap(self) -> None:
        player = Player(0.0)
        for message in range(5):
            assert player.add(b"a" * 160, message * 0.02 + (0.0199 if message else 0)) == 0.0
        assert self.heard(player).strip(b"\xff") == b"a" * 800

    def test_where_it_ran_empty_there_is_a_gap(self) -> None:
        player = Player(100.0)
        assert player.add(b"a" * 160, 100.0) == 0.0
        steps = [player.take_step() for _ in range(3)]
        assert steps == [b"\xff" * 160, b"a" * 160, None]
        assert player.add(b"b" * 160, 100.05) == pytest.approx(0.03)
        assert self.heard(player) == (b"\xff" * 80 + b"b" * 160).ljust(320, b"\xff")

    def test_a_mark_comes_back_when_the_audio_before_it_was_played(self) -> None:
        player = Player(0.0)
        player.mark("at once", 0.0)
        assert player.played_marks(0.0) == ["at once"]
        player.add(b"a" * 800, 0.0)
        player.mark("later", 0.0)
        player.add(b"a" * 800, 0.0)
        player.mark("last", 0.0)
        assert player.played_marks(0.119) == []
        assert player.played_marks(0.121) == ["later"]
        assert player.played_marks(0.221) == ["last"]
        assert player.played_marks(9.0) == []

    def test_a_clear_silences_at_once_and_returns_the_marks(self) -> None:
        player = Player(0.0)
        player.add(b"a" * 8000, 0.0)
        player.mark("one", 0.0)
        player.mark("two", 0.0)
        player.take_step()
        assert player.clear(0.03) == ["one", "two"]
        assert self.heard(player) == b"a" * 80 + b"\xff" * 80
        player.mark("at once", 0.04)
        assert player.played_marks(0.04) == ["at once"]
        assert player.add(b"b", 0.5) == 0.0  # what an interruption leaves is no gap

    def test_more_than_ten_minutes_are_discarded_with_a_warning(self) -> None:
        player = Player(0.0)
        player.add(b"a" * (8000 * 601), 0.0)
        with pytest.raises(RefusedMessageError) as error:
            player.add(b"b", 0.0)
        assert error.value.code == 31931
        player.add(b"b", 2.0)


def test_a_recording_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_BYTES", 800)
    kept = recording.Recording()
    for _ in range(20):
        kept.add(b"a" * 160, b"b" * 160)
    with wave.open(io.BytesIO(kept.wav())) as wav:
        assert wav.getnframes() == 800


class TestResponseTimes:
    """Legs of 20 ms steps: `#` is loud, `.` quiet."""

    def answers(self, caller: str, bot: str) -> list[int]:
        times = ResponseTimes()
        legs = ([LOUD if step == "#" else QUIET for step in leg] for leg in (caller, bot))
        told = [times.add(*steps) for steps in zip(*legs, strict=True)]
        assert [delay for delay in told if delay is not None] == times.delays_ms
        return times.delays_ms

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
            # the bot talks into a pause of the caller's, who goes on
            ("######....######" + "." * 24, "." * 8 + "#" * 32, []),
            ("." * 30, "..........####################", []),  # the bot speaks first
            ("###" + "." * 27, "." * 15 + "#" * 15, []),  # a click is no speech
            ("#" * 30, "." * 15 + "#" * 15, []),  # the bot interrupts
            # its second sentence is no second answer
            ("######" + "." * 44, "." * 16 + "####" + "." * 15 + "#" * 15, [200]),
        ],
    )
    def test_an_answer_is_timed_from_the_end_of_speech(self, caller, bot, delays_ms) -> None:
        assert self.answers(caller, bot) == delays_ms

    def test_the_median_is_of_all_answers(self) -> None:
        times = ResponseTimes()
        times.delays_ms = [100, 300, 200]
        assert times.median_ms == 200
