"""Calls from the phone's server, which plays Twilio's part, without a browser."""

import asyncio
import json
from base64 import b64encode
from typing import Any

import phone.call
import pytest
from aiohttp import web
from dialing import ACCOUNT_SID, CalledBot
from phone.server import PhoneServer
from phoning import TOKEN, BotSide, bot_that, page_of, page_to
from twilio.request_validator import RequestValidator

from pipecat_twilio import messages

STEP = b"\x01" * 160  # 20 ms of loud mu-law
NOT_FOUND = b"S HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


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


async def closes_at_once(bot: BotSide) -> None:
    await bot.socket.close(code=1008)


async def vanishes(bot: BotSide) -> None:
    await bot.send(event="clear")
    bot.request.transport.abort()


CANNOT = "The bot cannot be called: the address of its"


@pytest.mark.parametrize(
    ("bot", "sentence"),
    [
        (closes_at_once, "The bot closed the connection at once, with WebSocket code"),
        (vanishes, "The connection to the bot broke, with WebSocket code 1006."),
        ("ws://127.0.0.1:1/", "The bot is not there: nothing listens at ws://127.0.0.1:1/."),
        ("http://127.0.0.1:1/", "The bot is not there: nothing listens at http://127.0.0.1"),
        ("ws://a:99999/", f"{CANNOT} stream is not valid"),
        ("http://a..b/", f"{CANNOT} webhook is not valid"),
        *((NOT_FOUND.replace(b"S", s), "answered with status 404") for s in (b"ws", b"http")),
        (b"http 220 mail.example.com\r\n\r\n", "does not speak HTTP"),
        (b"ws ", "gave no answer"),
    ],
)
async def test_a_page_is_told_why_a_bot_cannot_be_called_and_can_call_again(
    bot: Any, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone.call, "AT_ONCE_SECS", 20)
    scheme, _, answer = bot.partition(b" ") if isinstance(bot, bytes) else (b"", b"", b"")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = f"{scheme.decode()}://127.0.0.1:{port}/" if scheme else bot
        async with page_to(address) as page:
            for _ in range(2):
                await page.order("call", rate=8000)
                await page.event("ended")
            (text,) = {*page.all("ended", "text")}
            assert sentence in text
