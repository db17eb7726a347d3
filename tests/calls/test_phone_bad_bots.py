"""Bots that the phone in the browser cannot talk to: it says why, and can call again."""

import asyncio
import socket
import time

import dialing
import phone_call
import pytest
from example_bot import free_port
from phoning import (
    CalledBot,
    Page,
    Talk,
    bot_that,
    closes_at_once,
    page_of,
    page_to,
    phone_to,
    sends_garbage,
    sends_nothing,
    serving,
    vanishes,
)

CLOSED = "The bot closed the connection at once, with WebSocket code"


async def sends_a_reserved_opcode(bot: CalledBot) -> None:
    """Breaks the WebSocket."""
    bot.request.transport.write(b"\x83\x00")  # RFC 6455, section 5.2
    await bot.socket.receive()


class TestSentences:
    """The page gets a sentence, and can call again."""

    async def told(self, page: Page, event: str) -> str:
        await page.order("call", rate=8000)
        text = (await page.event(event))["text"]
        if event != "ended":
            await page.order("hang up")
            await page.event("ended")
        return text

    async def told_twice(self, url: str, event: str = "ended") -> str:
        async with phone_to(url) as phone, page_of(phone) as page:
            first, second = await self.told(page, event), await self.told(page, event)
        assert first == second
        return first

    async def test_a_bot_that_is_not_there(self) -> None:
        for scheme in ("ws", "http"):
            url = f"{scheme}://127.0.0.1:{free_port()}/"
            assert await self.told_twice(url) == f"The bot is not there: nothing listens at {url}."

    @pytest.mark.parametrize(
        ("talk", "event", "sentence"),
        [
            (closes_at_once, "ended", f"{CLOSED} 1008."),
            (sends_garbage, "warning", "JSON is malformed"),
            (sends_nothing, "notice", "The bot has sent nothing for 0 s."),
            (vanishes, "ended", "The connection to the bot broke, with WebSocket code 1006."),
            (sends_a_reserved_opcode, "ended", f"{CLOSED} 1002."),
        ],
    )
    async def test_a_bot_that_misbehaves(
        self, talk: Talk, event: str, sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(phone_call, "SILENT_SECS", 0.2)
        async with bot_that(talk) as url:
            assert (await self.told_twice(url, event)).startswith(sentence)

    @pytest.mark.parametrize("url", ["ws://a:99999/", "ws://a..b/", "http://a:99999/"])
    async def test_a_bot_whose_address_is_none(self, url: str) -> None:
        what = "webhook" if url.startswith("http") else "stream"
        sentence = f"The bot cannot be called: the address of its {what} is not valid: {url}."
        assert await self.told_twice(url) == sentence

    async def test_a_bot_that_refuses_the_websocket(self) -> None:
        async with serving() as host:
            assert await self.told_twice(f"ws://{host}/") == (
                "The bot refused the call: its stream answered with status 404, not with a "
                "WebSocket (Twilio error 31920)."
            )

    async def test_a_webhook_that_fails(self) -> None:
        async with serving() as host:
            assert await self.told_twice(f"http://{host}/") == (
                "The bot's webhook answered with status 404 (Twilio error 11200)."
            )

    async def test_a_server_that_does_not_speak_http(self) -> None:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example.com\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert await self.told_twice(url) == (
                f"What listens at {url} is no bot: it does not speak HTTP."
            )

    async def test_a_bot_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialing, "ANSWER_SECS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            host = f"127.0.0.1:{silent.getsockname()[1]}"
            for url, what in ((f"ws://{host}/", "stream"), (f"http://{host}/", "webhook")):
                assert await self.told_twice(url) == (
                    f"The bot does not answer: its {what} at {url} sent nothing for 0 s."
                )

    async def test_a_call_can_be_given_up_before_it_is_answered(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
            async with phone_to(url) as phone, page_of(phone) as page:
                await page.order("call", rate=8000)
                await page.event("calling")
                await page.order("hang up")
                assert (await page.event("ended"))["text"] == "You hung up."

    async def test_a_machine_that_slept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(phone_call, "MAX_LATE_SECS", 0.1)
        async with page_to(sends_nothing) as page:
            await page.call()
            time.sleep(0.5)  # noqa: ASYNC251  # nothing runs meanwhile
            text = (await page.event("ended"))["text"]
            assert text == "The phone stood still for 0 s."
