"""Calls from the phone's server, which plays Twilio's part, without a browser."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from aiohttp import web
from phoning import (
    ACCOUNT_SID,
    TOKEN,
    CalledBot,
    Page,
    comes_back,
    page_of,
    page_to,
    phone_to,
    phone_to_echo_bot,
    sends_nothing,
    serving,
    speech,
)
from streamdouble.protocol import MediaStreamEncoder, StreamIdentity
from twilio.request_validator import RequestValidator

from pipecat_twilio import messages

STEP = b"\x01" * 160  # 20 ms of loud mu-law
LOUD_STEP = b"\x00\x20" * (Page.RATE // 50)  # the same as PCM


@pytest.fixture
async def echo(call: ModuleType) -> AsyncIterator[Page]:
    """A page that calls the example bot over this package's transport."""
    async with phone_to_echo_bot(call) as phone, page_of(phone) as page:
        yield page


class TestACallToTheEchoBot:
    """The bot checks signatures, opens the stream with TwiML, and hangs up over REST."""

    async def test_speech_comes_back(self, echo: Page) -> None:
        await echo.call()
        await echo.say(bytes(16_000) + speech() + bytes(10_000))
        await echo.order("hang up")
        assert (await echo.event("ended"))["text"] == "You hung up."
        sent, played = await echo.recording()
        assert comes_back(sent, played)
        said, heard = (np.frombuffer(pcm, "<i2").astype(float) for pcm in (speech(), echo.heard))
        assert comes_back(said[::2], heard[::2])

    async def test_keys_have_their_effect_without_a_warning(self, echo: Page) -> None:
        await echo.call()
        await echo.order("press", key="7")
        assert (await echo.event("mark"))["name"] == "key 7"
        await echo.order("press", key="*")
        await echo.event("clear")
        await echo.order("press", key="#")
        assert (await echo.event("ended"))["text"] == "The bot hung up."
        assert not [event for event in echo.events if event["event"] in ("warning", "notice")]


async def test_an_unsigned_call_is_refused_by_a_bot_that_checks(call: ModuleType) -> None:
    async with phone_to_echo_bot(call) as phone:
        phone.bot = replace(phone.bot, auth_token="f" * 32)
        async with page_of(phone) as page:
            await page.order("call", rate=8000)
            assert "answered with status 403" in (await page.event("ended"))["text"]


async def test_it_sends_what_streamdouble_sends_in_the_same_call() -> None:
    calls: list[CalledBot] = []

    async def talk(bot: CalledBot) -> None:
        calls.append(bot)
        await bot.answer()
        payload = b64encode(STEP * 5).decode()
        await bot.send(event="media", media={"payload": payload})
        await bot.send(event="mark", mark={"name": "said"})
        await bot.read("mark")
        await bot.read("stop")

    async with page_to(talk, parameters={"name": "value"}) as page:
        await page.call()
        await page.order("press", key="#")
        await page.event("mark")
        await page.say(speech()[:6400])
        await page.order("hang up")
        await page.event("ended")
    sent = calls[0].messages
    assert {m["event"] for m in sent} == {"connected", "start", "media", "dtmf", "mark", "stop"}
    start = sent[1]["start"]
    identity = StreamIdentity(start["streamSid"], start["accountSid"], start["callSid"])
    encoder = MediaStreamEncoder(identity)
    same = {
        "connected": lambda _: encoder.connected(),
        "start": lambda _: encoder.start(custom_parameters={"name": "value"}),
        "media": lambda m: encoder.media(b64decode(m["media"]["payload"])),
        "dtmf": lambda m: encoder.dtmf(m["dtmf"]["digit"]),
        "mark": lambda m: encoder.mark(m["mark"]["name"]),
        "stop": lambda _: encoder.stop(),
    }
    for message in sent:
        assert message == same[message["event"]](message)
        messages.parse(json.dumps(message))  # and the package reads it


async def test_a_webhook_is_asked_as_twilio_asks_and_its_twiml_is_followed() -> None:
    asked: list[tuple[dict, str]] = []
    started: list[dict] = []

    async def answer(request: web.Request) -> web.Response:
        form = dict(await request.post())
        asked.append((form, request.headers["X-Twilio-Signature"]))
        stream = '<Stream url="/ws"><Parameter name="guest" value="Ann &amp; Bo"/></Stream>'
        return web.Response(text=f"<Response><Connect>{stream}</Connect></Response>")

    async def take(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        bot = CalledBot(request, socket)
        started.append((await bot.read("start"))["start"])
        return socket

    async with serving(web.post("/voice", answer), web.get("/ws", take)) as host:
        numbers = {"caller": "+15005550009", "called": "+15005550008"}
        async with (
            phone_to(f"http://{host}/voice", auth_token=TOKEN, **numbers) as phone,
            page_of(phone) as page,
        ):
            await page.call()
            await page.event("ended")
    ((form, signature),) = asked
    assert RequestValidator(TOKEN).validate(f"http://{host}/voice", form, signature)
    assert started[0]["customParameters"] == {"guest": "Ann & Bo"}
    assert form["CallSid"] == started[0]["callSid"]
    assert form["AccountSid"] == started[0]["accountSid"] == ACCOUNT_SID
    assert (form["From"], form["To"]) == ("+15005550009", "+15005550008")


async def test_the_recording_has_the_caller_left_and_the_bot_right() -> None:
    async def talk(bot: CalledBot) -> None:
        await bot.answer()
        await bot.send(event="media", media={"payload": b64encode(STEP * 3).decode()})
        await bot.read("stop")

    async with page_to(talk) as page:
        await page.call()
        for _ in range(10):
            await page.event("step")
        caller, bot = await page.recording()
    assert not caller.any()
    assert np.count_nonzero(bot) == 3 * len(STEP)


async def test_a_clear_silences_within_one_message() -> None:
    async def talk(bot: CalledBot) -> None:
        await bot.answer()
        await bot.send(event="media", media={"payload": b64encode(STEP * 500).decode()})
        await bot.send(event="mark", mark={"name": "unheard"})
        for _ in range(10):
            await bot.read("media")
        await bot.send(event="clear")
        await bot.read("stop")

    async with page_to(talk) as page:
        await page.call()
        await page.event("clear")
        after = [(await page.event("step"))["bot"] for _ in range(5)]
        assert after[1:] == [None] * 4  # the first one had begun before
        peaks = [event["bot"] for event in page.events if event["event"] == "step"]
        assert any(peaks[:-5])
        assert [event["name"] for event in page.events if event["event"] == "mark"] == ["unheard"]


async def test_audio_that_the_page_sends_too_fast_does_not_delay_the_caller() -> None:
    async with page_to(sends_nothing) as page:
        await page.call()
        for _ in range(50):
            await page.send(LOUD_STEP)
        for _ in range(60):
            await page.event("step")
        caller, _ = await page.recording()
    assert 0 < np.count_nonzero(caller) <= 8000 * 0.2


async def test_each_warning_has_twilios_number_and_is_sent_once() -> None:
    async def talk(bot: CalledBot) -> None:
        await bot.answer()
        for _ in range(3):
            await bot.socket.send_bytes(STEP)
            await bot.send(event="media", media={"payload": "not base64"})
        await bot.send(event="mark", mark={"name": "last"})
        await bot.read("stop")

    async with page_to(talk) as page:
        await page.call()
        await page.event("mark")
        warnings = [event["code"] for event in page.events if event["event"] == "warning"]
        assert warnings == [31950, 31951]


async def test_a_gap_in_the_bots_speech_is_reported() -> None:
    async def talk(bot: CalledBot) -> None:
        await bot.answer()
        for _ in range(2):
            await bot.send(event="media", media={"payload": b64encode(STEP * 5).decode()})
            await asyncio.sleep(0.3)
        await bot.read("stop")

    async with page_to(talk) as page:
        await page.call()
        gap = await page.event("gap")
        assert 150 < gap["ms"] < 1000  # 200 on a machine that keeps up
        assert (gap["count"], gap["sum_ms"]) == (1, gap["ms"])
