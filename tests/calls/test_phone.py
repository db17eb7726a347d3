"""Calls from the phone's server, which plays Twilio's part, without a browser."""

import json
from base64 import b64encode
from typing import Any

import numpy as np
import phone.call
import pytest
from aiohttp import web
from dialing import ACCOUNT_SID
from phoning import (
    TOKEN,
    BotSide,
    Page,
    bot_that,
    comes_back,
    echo_comes_back,
    page_of,
    page_to,
    phone_to,
    phone_to_echo_bot,
    sends_nothing,
    speech,
)
from twilio.request_validator import RequestValidator

from pipecat_twilio import messages

STEP = b"\x01" * 160  # 20 ms of loud mu-law


def audio(steps: int) -> dict[str, Any]:
    """Returns a message of audio for `BotSide.send`."""
    return {"event": "media", "media": {"payload": b64encode(STEP * steps).decode()}}


class TestACallToTheEchoBot:
    """The bot checks signatures, opens the stream with TwiML, and hangs up over REST."""

    async def test_speech_comes_back_to_the_recording_and_to_the_page(self) -> None:
        async with phone_to_echo_bot() as phone, page_of(phone.url) as page:
            await page.call()
            assert await echo_comes_back(page)
            said, heard = (np.frombuffer(p, "<i2").astype(float) for p in (speech(), page.heard))
            assert comes_back(said[::2], heard[::2])
            await page.order("hang up")
            assert (await page.event("ended"))["text"] == "You hung up."

    async def test_keys_have_their_effect_without_a_warning(self) -> None:
        async with phone_to_echo_bot() as phone, page_of(phone.url) as page:
            await page.call()
            await page.order("press", key="7")
            assert (await page.event("mark"))["name"] == "key 7"
            await page.order("press", key="*")
            await page.event("clear")
            await page.order("press", key="#")
            assert (await page.event("ended"))["text"] == "The bot hung up."
            assert not page.all("warning", "text") + page.all("notice", "text")


async def test_webhook_and_stream_are_asked_as_twilio_asks() -> None:
    asked: list[tuple[dict, str]] = []
    calls: list[BotSide] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((dict(await request.post()), request.headers["X-Twilio-Signature"]))
        stream = '<Stream url="/ws"><Parameter name="guest" value="Ann &amp; Bo"/></Stream>'
        return web.Response(text=f"<Response><Connect>{stream}</Connect></Response>")

    async def talk(bot: BotSide) -> None:
        calls.append(bot)
        await bot.read("dtmf")
        await bot.send(event="mark", mark={"name": "said"})
        await bot.read("stop")

    numbers = {"caller": "+15005550009", "called": "+15005550008"}
    async with bot_that(talk, web.post("/voice", answer)) as stream:
        url = stream.replace("ws://", "http://").replace("/ws", "/voice")
        async with phone_to(url, auth_token=TOKEN, **numbers) as phone, page_of(phone.url) as page:
            await page.call()
            for key in ("", "12", "A", "#"):  # only the last one is a key of a telephone
                await page.order("press", key=key)
            await page.event("mark")
            await page.order("hang up")
            await page.event("ended")
    ((form, signature),) = asked
    assert RequestValidator(TOKEN).validate(url, form, signature)
    headers = calls[0].request.headers
    assert RequestValidator(TOKEN).validate(stream, {}, headers["X-Twilio-Signature"])
    assert "Sec-WebSocket-Extensions" not in headers  # as Twilio, no compression
    sent = calls[0].messages
    start = sent[1]["start"]
    assert start["customParameters"] == {"guest": "Ann & Bo"}
    assert form["CallSid"] == start["callSid"]
    assert form["AccountSid"] == start["accountSid"] == ACCOUNT_SID
    assert (form["From"], form["To"]) == ("+15005550009", "+15005550008")
    assert [m["dtmf"]["digit"] for m in sent if m["event"] == "dtmf"] == ["#"]
    kinds = [type(messages.parse(json.dumps(message))).__name__ for message in sent]
    assert [*kinds[:3], kinds[-1]] == ["Connected", "Start", "Media", "Stop"]


class TestOneCall:
    """Between a page and a scripted bot."""

    async def test_the_recording_has_the_caller_left_and_the_bot_right(self) -> None:
        async def talk(bot: BotSide) -> None:
            await bot.send(**audio(3))
            await bot.send(event="mark", mark={"name": "played"})
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            await page.event("mark")
            bot = np.zeros(0)
            while np.count_nonzero(bot) < 3 * len(STEP):  # a busy phone plays what is overdue
                await page.steps(1)
                caller, bot = await page.recording()
        assert not caller.any()
        assert np.count_nonzero(bot) == 3 * len(STEP)

    async def test_a_recording_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(phone.call, "MAX_RECORDED", 800)
        async with page_to(sends_nothing) as page:
            await page.call()
            await page.steps(10)
            assert len((await page.recording())[0]) == 800

    async def test_a_clear_silences_within_one_message(self) -> None:
        async def talk(bot: BotSide) -> None:
            await bot.send(**audio(500))
            await bot.send(event="mark", mark={"name": "unheard"})
            await bot.read("dtmf")
            await bot.send(event="clear")
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            while (await page.event("step"))["bot"] is None:
                pass
            await page.order("press", key="1")
            await page.event("clear")
            _, *after = await page.steps(5)
            assert [step["bot"] for step in after] == [None] * 4  # the first one had begun before
            assert page.all("mark", "name") == ["unheard"]

    async def test_audio_that_the_page_sends_too_fast_does_not_delay_the_caller(self) -> None:
        async with page_to(sends_nothing) as page:
            await page.call()
            for _ in range(50):
                await page.socket.send_bytes(b"\x00\x20" * (Page.RATE // 50))
            await page.steps(60)
            caller, _ = await page.recording()
        assert 0 < np.count_nonzero(caller) <= 8000 * 0.2

    async def test_each_warning_has_twilios_number_and_is_sent_once(self) -> None:
        async def talk(bot: BotSide) -> None:
            await bot.read("start")
            for _ in range(3):
                await bot.socket.send_bytes(STEP)
                await bot.send(event="media", media={"payload": "not base64"})
            for secs in (250, 250, 101, 1):  # Twilio keeps 600
                await bot.send(**audio(50 * secs))
            await bot.send(event="clear")
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            await page.event("clear")
            assert page.all("warning", "code") == [31950, 31951, 31931]

    async def test_a_gap_in_the_bots_speech_is_reported(self) -> None:
        async def talk(bot: BotSide) -> None:
            for name in ("one", "two"):
                await bot.send(**audio(5))
                await bot.send(event="mark", mark={"name": name})
                await bot.read("mark")
                for _ in range(10):
                    await bot.read("media")
            await bot.read("stop")

        async with page_to(talk) as page:
            await page.call()
            gap = await page.event("gap")
            assert 100 < gap["ms"] < 1000  # 200 on a machine that keeps up
            assert (gap["count"], gap["sum_ms"]) == (1, gap["ms"])

    @pytest.mark.parametrize("rate", [8000, 11025, 48000, 191_975])
    async def test_a_page_may_have_any_rate_of_a_browser(self, rate: int) -> None:
        async with page_to(sends_nothing) as page:
            await page.order("call", rate=rate)
            await page.steps(50)
            # A step whose number of samples is not whole has one more or one less.
            assert abs(len(page.heard) - 2 * rate) <= 2 * (rate // 50 + 1)
