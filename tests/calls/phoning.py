"""What the tests of the phone share: scripted bots, and a page without a browser."""

import asyncio
import io
import json
import socket
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import echo_bot
import numpy as np
from aiohttp import web
from dialing import ACCOUNT_SID, CalledBot
from listening import SPEECH
from phone.server import PhoneServer
from serving import serve

TOKEN = "0123456789abcdef0123456789abcdef"
WAIT_SECS = 20  # for what comes at once on a machine that is not busy


class BotSide:
    """The bot's end of one call; records the messages that it receives."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket
        self.messages: list[dict[str, Any]] = []

    async def read(self, event: str) -> dict[str, Any]:
        """Reads up to the next message of a kind."""
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


@asynccontextmanager
async def bot_that(talk: Talk, *routes: web.RouteDef) -> AsyncIterator[str]:
    """Serves a bot that takes each call as `talk` says; gives its stream's address."""

    async def take(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(BotSide(request, socket))
        await socket.close()
        return socket

    app = web.Application()
    app.add_routes([web.get("/ws", take), *routes])
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
    finally:
        await runner.cleanup()


def phone_to(url: str, **settings: Any) -> PhoneServer:
    """Returns a phone that calls a bot."""
    return PhoneServer(CalledBot(url, **settings))


@asynccontextmanager
async def phone_to_echo_bot() -> AsyncIterator[PhoneServer]:
    """Serves the echo bot, which takes only signed requests, and a phone that calls it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    async with phone_to(url, auth_token=TOKEN) as phone:
        settings = echo_bot.Settings(ACCOUNT_SID, TOKEN, public_url=url, base_url=phone.url)
        async with serve(echo_bot.create_app(settings), port):
            yield phone


class Page:
    """What a page hears and says, without a browser; its PCM has 16 kHz."""

    RATE = 16000

    def __init__(self, url: str, session: aiohttp.ClientSession, socket: Any) -> None:
        self._url = url
        self._session = session
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.heard = bytearray()

    async def order(self, do: str, **details: Any) -> None:
        """Does what a person would do on the page."""
        await self.socket.send_json({"do": do, **details})

    async def call(self) -> None:
        """Presses call, and waits until the bot is there."""
        await self.order("call", rate=self.RATE)
        await self.event("talking")

    async def event(self, name: str) -> dict[str, Any]:
        """Waits for the next event of a kind."""
        async with asyncio.timeout(WAIT_SECS):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.heard += message.data
                    continue
                self.events.append(json.loads(message.data))
                if self.events[-1]["event"] == name:
                    return self.events[-1]

    async def steps(self, count: int) -> list[dict[str, Any]]:
        """Waits for the next steps of 20 ms."""
        return [await self.event("step") for _ in range(count)]

    def all(self, name: str, key: str) -> list[Any]:
        """Returns a detail of all events of a kind up to now."""
        return [event[key] for event in self.events if event["event"] == name]

    async def say(self, pcm: bytes) -> None:
        """Says PCM at the pace of the call's steps."""
        step_bytes = 2 * self.RATE // 50
        for at in range(0, len(pcm), step_bytes):
            await self.socket.send_bytes(pcm[at : at + step_bytes])
            await self.event("step")

    async def recording(self) -> tuple[np.ndarray, np.ndarray]:
        """Gets the recording of the last call: its two legs."""
        sid = self.all("calling", "call_sid")[-1]
        async with self._session.get(f"{self._url}/recordings/{sid}.wav") as got:
            assert got.status == 200
            return legs(await got.read())


@asynccontextmanager
async def page_of(url: str) -> AsyncIterator[Page]:
    """Opens a page of the phone at an address."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/page", origin=url) as socket,
    ):
        page = Page(url, session, socket)
        await page.event("ready")
        yield page


@asynccontextmanager
async def page_to(talk: Talk, **settings: Any) -> AsyncIterator[Page]:
    """Serves a bot that takes each call as `talk` says; opens a page of a phone that calls it."""
    async with (
        bot_that(talk) as url,
        phone_to(url, **settings) as phone,
        page_of(phone.url) as page,
    ):
        yield page


def legs(wav: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two legs of a recording."""
    with wave.open(io.BytesIO(wav)) as file:
        assert file.getparams()[:3] == (2, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    return samples[::2], samples[1::2]


def speech(secs: float = 1.5) -> bytes:
    """Returns the beginning of the callers' speech, 16 kHz; it has 3.3 s."""
    with wave.open(str(SPEECH)) as wav:
        return wav.readframes(round(Page.RATE * secs))


def likeness(part: np.ndarray, whole: np.ndarray) -> float:
    """Returns the correlation of `part` with that of `whole` which is most like it; at most 1."""
    size = len(part) + len(whole)
    spectrum = np.fft.rfft(whole, size) * np.fft.rfft(part, size).conj()
    products = np.fft.irfft(spectrum, size)[: len(whole)]
    energy = np.cumsum(np.concatenate([[0.0], whole**2, np.zeros(len(part))]))
    norms = np.sqrt(energy[len(part) : len(part) + len(whole)] - energy[: len(whole)])
    return float((products / np.maximum(norms * np.linalg.norm(part), 1)).max())


def comes_back(said: np.ndarray, heard: np.ndarray) -> bool:
    """Tells whether a quarter of a second of speech is heard; a busy machine breaks up the rest."""
    pieces = [said[at : at + 2000] for at in range(0, len(said) - 1999, 1000)]  # 8 kHz
    return max(likeness(piece, heard) for piece in pieces if np.abs(piece).max() > 2000) > 0.95


async def echo_comes_back(page: Page) -> bool:
    """Speaks until a piece of it comes back: a busy machine breaks up most pieces."""
    for _ in range(8):
        await page.say(bytes(8000) + speech() + bytes(8000))
        if comes_back(*await page.recording()):
            return True
    return False


async def closes_at_once(bot: BotSide) -> None:
    """Refuses the call."""
    await bot.socket.close(code=1008)


async def sends_garbage(bot: BotSide) -> None:
    """Sends a message that Twilio would not accept."""
    await bot.socket.send_str("garbage")
    await bot.read("stop")


async def sends_nothing(bot: BotSide) -> None:
    """Only receives."""
    await bot.read("stop")
