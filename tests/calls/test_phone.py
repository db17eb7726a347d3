"""Calls from the phone's server, which plays Twilio's part, without a browser."""

import asyncio
import json
import socket
import time
from base64 import b64encode
from typing import Any

import dialing
import numpy as np
import phone.call
import pytest
from aiohttp import web
from dialing import ACCOUNT_SID, CalledBot
from phone.server import RATES, PhoneServer
from phoning import RATE, TOKEN, BotSide, Page, bot_that, page_of, page_to, sends_nothing
from twilio.request_validator import RequestValidator

from pipecat_twilio import messages

STEP = b"\x01" * 160  # 20 ms of loud mu-law
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def audio(steps: int) -> dict[str, Any]:
    """Returns a message of audio for `BotSide.send`."""
    return {"event": "media", "media": {"payload": b64encode(STEP * steps).decode()}}


async def test_webhook_and_stream_are_asked_as_twilio_asks() -> None:
    requests: list[web.Request] = []
    calls: list[BotSide] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        await request.post()
        stream = '<Stream url="/ws"><Parameter name="guest" value="Ann &amp; Bo"/></Stream>'
        return web.Response(text=f"<Response><Connect>{stream}</Connect></Response>")

    async def talk(bot: BotSide) -> None:
        calls.append(bot)
        await bot.read("stop")

    async with bot_that(talk, web.post("/voice", answer)) as stream:
        url = stream.replace("ws://", "http://").replace("/ws", "/voice")
        bot = CalledBot(url, auth_token=TOKEN, caller="+15005550009", called="+15005550008")
        async with PhoneServer(bot) as server, page_of(server.url) as page:
            await page.call()
            for key in ("", "12", "A", "#"):  # only the last one is a key of a telephone
                await page.order("press", key=key)
            await page.event("step", 2)
            await page.hang_up()
    form = dict(await requests[0].post())
    for request, address, params in ((requests[0], url, form), (calls[0].request, stream, {})):
        signature = request.headers["X-Twilio-Signature"]
        assert RequestValidator(TOKEN).validate(address, params, signature)
        assert "Sec-WebSocket-Extensions" not in request.headers  # as Twilio, no compression
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

    async def test_audio_that_the_page_sends_too_fast_does_not_delay_the_caller(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(phone.call, "MAX_RECORDED", 8000)
        async with page_to(sends_nothing) as page:
            await page.call()
            for _ in range(50):
                await page.socket.send_bytes(b"\x00\x20" * (RATE // 50))
            await page.event("step", 60)
            caller, _ = await page.recording()
        assert 0 < np.count_nonzero(caller) <= 8000 * 0.2
        assert len(caller) == 8000

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
            while True:
                await bot.send(**audio(5))
                await bot.send(event="mark", mark={"name": "said"})
                await bot.read("mark")
                for _ in range(10):
                    await bot.read("media")

        async with page_to(talk) as page:
            await page.call()
            gap = await page.event("gap")
            assert 100 < gap["ms"] < 1000  # 200 on a machine that keeps up
            assert (gap["count"], gap["sum_ms"]) == (1, gap["ms"])


class TestRates:
    """The page's audio has the rate of its machine's sound card."""

    @pytest.mark.parametrize("rate", RATES)
    async def test_a_page_may_have_any_usual_rate(self, rate: int) -> None:
        async with page_to(sends_nothing) as page:
            await page.order("call", rate=rate)
            await page.event("talking")
            for _ in range(10):  # 0.2 s
                await page.socket.send_bytes(b"\x00\x20" * (rate // 50))
            await page.event("step", 20)
            caller, _ = await page.recording()
            # A step whose number of samples is not whole has one more or one less.
            assert abs(len(page.heard) - 2 * 20 * rate // 50) <= 2 * (rate // 50 + 1)
        # The end of what was said fills no step, and is not sent.
        assert 1300 < np.count_nonzero(np.abs(caller) > 7000) <= 1600

    @pytest.mark.parametrize("rate", [191_975, 8009, "44100"])
    async def test_another_rate_is_refused_with_a_sentence(self, rate: int | str) -> None:
        async with page_to(sends_nothing) as page:
            await page.order("call", rate=rate)
            text = (await page.event("ended"))["text"]
            assert text.startswith(f"The phone cannot be used with a sound card of {rate} Hz")
            await page.call()


async def closes_at_once(bot: BotSide) -> None:
    await bot.socket.close(code=1008)


async def vanishes(bot: BotSide) -> None:
    await bot.send(event="clear")
    bot.request.transport.abort()


class TestABotThatCannotBeCalled:
    """The page gets a sentence, and can call again."""

    async def told(self, page: Page) -> str:
        """Calls twice; returns the sentence with which each call ends."""
        for _ in range(2):
            await page.order("call", rate=8000)
            await page.event("ended")
        (text,) = {*page.all("ended", "text")}
        return text

    @pytest.mark.parametrize(
        ("talk", "sentence"),
        [
            (closes_at_once, "The bot closed the connection at once, with WebSocket code"),
            (vanishes, "The connection to the bot broke, with WebSocket code 1006."),
            ("ws://127.0.0.1:1/", "The bot is not there: nothing listens at ws://127.0.0.1:1/."),
            ("http://127.0.0.1:1/", "The bot is not there: nothing listens at http://127.0.0.1"),
            ("ws://a:99999/", "The bot cannot be called: the address of its stream is not valid"),
            ("http://a..b/", "The bot cannot be called: the address of its webhook is not valid"),
        ],
    )
    async def test_the_sentence_says_why(self, talk, sentence, monkeypatch) -> None:
        monkeypatch.setattr(phone.call, "AT_ONCE_SECS", 20)
        async with page_to(talk) as page:
            assert (await self.told(page)).startswith(sentence)

    @pytest.mark.parametrize(
        ("scheme", "answer", "sentence"),
        [
            *((ws, NOT_FOUND, "answered with status 404") for ws in ("ws", "http")),
            ("http", b"220 mail.example.com\r\n\r\n", "does not speak HTTP"),
            ("ws", b"", "gave no answer"),
        ],
    )
    async def test_a_server_that_is_not_a_bot(self, scheme, answer: bytes, sentence: str) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with page_to(f"{scheme}://127.0.0.1:{port}/") as page:
                assert sentence in await self.told(page)

    @pytest.mark.parametrize("scheme", ["ws", "http"])
    async def test_a_bot_that_does_not_answer(self, scheme: str, monkeypatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/"
            async with page_to(url) as page:
                for module in (dialing, phone.call):
                    monkeypatch.setattr(module, "ANSWER_SECS", 0.2)
                assert "sent nothing for 0 s." in await self.told(page)

    async def test_a_machine_that_slept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with page_to(sends_nothing) as page:
            await page.call()
            monkeypatch.setattr(phone.call, "MAX_LATE_SECS", 0.1)
            time.sleep(0.5)  # noqa: ASYNC251  # nothing runs meanwhile
            text = (await page.event("ended"))["text"]
            assert text.startswith("The phone stood still for")
