"""What the tests of the phone share: scripted bots, and a page without a browser."""

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from dialing import CalledBot
from listening import SPEECH, best_match
from phone.server import PhoneServer
from serving import serve_routes

TOKEN = "0123456789abcdef0123456789abcdef"
RATE = 16000  # of the page's PCM
WAIT_SECS = 20  # for what comes at once on a machine that is not busy


class BotSide:
    """The bot's end of one call; records the messages that it receives."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket
        self.messages: list[dict[str, Any]] = []

    async def read(self, event: str) -> dict[str, Any]:
        while True:
            self.messages.append(json.loads((await self.socket.receive(WAIT_SECS)).data))
            if self.messages[-1]["event"] == event:
                return self.messages[-1]

    async def send(self, **message: Any) -> None:
        """Sends a message of the stream, after `start`."""
        if len(self.messages) < 2:
            await self.read("start")
        await self.socket.send_json({"streamSid": self.messages[1]["streamSid"], **message})


Talk = Callable[[BotSide], Awaitable[None]]


async def sends_nothing(bot: BotSide) -> None:
    await bot.read("stop")


@asynccontextmanager
async def bot_that(talk: Talk, *routes: web.RouteDef) -> AsyncIterator[str]:
    """Serves a bot that takes each call as `talk` says; gives its stream's address."""

    async def take(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(BotSide(request, socket))
        await socket.close()
        return socket

    async with serve_routes(web.get("/ws", take), *routes) as url:
        yield url.replace("http", "ws") + "/ws"


class Page:
    """What a page hears and says, without a browser."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def order(self, do: str, **details: Any) -> None:
        await self.socket.send_json({"do": do, **details})

    async def call(self) -> None:
        await self.order("call", rate=RATE)
        await self.event("talking")

    async def hang_up(self) -> str:
        """Hangs up; returns the sentence that the page then shows."""
        await self.order("hang up")
        return (await self.event("ended"))["text"]

    async def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """Waits for the next events of a kind; returns the last of them."""
        async with asyncio.timeout(WAIT_SECS):
            while count:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    self.events.append(json.loads(message.data))
                    count -= self.events[-1]["event"] == name
        return self.events[-1]

    def all(self, name: str, key: str) -> list[Any]:
        return [event[key] for event in self.events if event["event"] == name]


@asynccontextmanager
async def page_of(url: str) -> AsyncIterator[Page]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/page", origin=url) as socket,
    ):
        page = Page(socket)
        await page.event("ready")
        yield page


@asynccontextmanager
async def page_to(talk: Talk | str) -> AsyncIterator[Page]:
    """Opens a page of a phone to a bot: at an address, or one that takes calls as `talk` says."""
    async with (
        nullcontext(talk) if isinstance(talk, str) else bot_that(talk) as url,
        PhoneServer(CalledBot(url)) as phone,
        page_of(phone.url) as page,
    ):
        yield page


def legs(wav: bytes) -> tuple[np.ndarray, np.ndarray]:
    with wave.open(io.BytesIO(wav)) as file:
        assert file.getparams()[:3] == (2, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    return samples[::2], samples[1::2]


def speech(secs: float = 1.5) -> bytes:
    """Returns the beginning of the callers' speech, 16 kHz; it has 3.3 s."""
    with wave.open(str(SPEECH)) as wav:
        return wav.readframes(round(RATE * secs))


def likeness(part: np.ndarray, whole: np.ndarray) -> float:
    """Returns the correlation of `part` with that of `whole` which is most like it; at most 1."""
    return best_match(part, whole, np.cumsum(np.r_[0, whole**2]))[1]


def comes_back(said: np.ndarray, heard: np.ndarray) -> bool:
    """Tells whether a quarter of a second of speech is heard; a busy machine breaks up the rest."""
    pieces = [said[at : at + 2000] for at in range(0, len(said) - 1999, 1000)]  # 8 kHz
    return any(likeness(piece, heard) > 0.95 for piece in pieces if np.abs(piece).max() > 2000)
