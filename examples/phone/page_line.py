"""The line to one page: what it asks for, and one call at a time."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web
from dialing import Bot
from phone_call import PhoneCall

KEYS = frozenset("0123456789*#")
RATES = range(8000, 192_001, 25)  # Hz; all that browsers have, and all can be converted


class PageLine:
    """One open page.

    Args:
        socket: Its WebSocket: JSON with what to `do` and `event`s, PCM as binary messages.
        bot: Whom it calls.
        calls: Where its call is while it goes on, by SID.
        last_calls: Where its last call is, by SID, until the next one or until the page closes.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        bot: Bot,
        calls: dict[str, PhoneCall],
        last_calls: dict[str, PhoneCall],
    ) -> None:
        self._socket = socket
        self._bot = bot
        self._calls = calls
        self._last_calls = last_calls
        self._call: PhoneCall | None = None
        self._last_call_sid = ""

    async def run(self) -> None:
        """Does what the page asks for, until it closes."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._tell("ready", bot=self._bot.url)
                async for message in self._socket:
                    if message.type is aiohttp.WSMsgType.BINARY and self._call is not None:
                        self._call.hear(message.data[: len(message.data) // 2 * 2])
                    elif message.type is aiohttp.WSMsgType.TEXT:
                        self._do(json.loads(message.data), group)
                if self._call is not None:
                    self._call.hang_up("The page was closed.")
        finally:
            self._last_calls.pop(self._last_call_sid, None)

    def _do(self, order: dict[str, Any], group: asyncio.TaskGroup) -> None:
        match order:
            case {"do": "call", "rate": int(rate)} if rate in RATES:
                if self._call is None:
                    self._call = PhoneCall(self._bot, rate, tell=self._tell, play=self._play)
                    group.create_task(self._make(self._call))
            case {"do": "press", "key": str(key)} if key in KEYS and self._call is not None:
                self._call.press(key)
            case {"do": "hang up"} if self._call is not None:
                self._call.hang_up("You hung up.")

    async def _make(self, call: PhoneCall) -> None:
        self._last_calls.pop(self._last_call_sid, None)
        self._last_call_sid = call.call_sid
        self._calls[call.call_sid] = self._last_calls[call.call_sid] = call
        await self._tell("calling", call_sid=call.call_sid)
        try:
            sentence = await call.run()
        finally:
            del self._calls[call.call_sid]
            self._call = None
        await self._tell("ended", text=sentence)

    async def _tell(self, event: str, **details: Any) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):  # a closed page hears nothing
            await self._socket.send_json({"event": event, **details})

    async def _play(self, pcm: bytes) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            await self._socket.send_bytes(pcm)
