"""What the tests of the phone share: scripted bots, and a page without a browser."""

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import numpy as np
import uvicorn
from aiohttp import web
from dialing import Bot
from example_bot import free_port
from page_server import PhoneServer

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

ACCOUNT_SID = "AC" + "0" * 32
TOKEN = "0123456789abcdef0123456789abcdef"
WAIT_SECS = 10

Talk = Callable[["CalledBot"], Awaitable[None]]


class CalledBot:
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

    async def answer(self) -> str:
        """Reads up to `start`; returns the stream's SID."""
        return (await self.read("start"))["streamSid"]

    async def send(self, **message: Any) -> None:
        """Sends a message of the stream."""
        await self.socket.send_json({"streamSid": self.messages[1]["streamSid"], **message})


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    """Serves routes on loopback; gives the host and port."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bot_that(talk: Talk) -> AsyncIterator[str]:
    """Serves a bot that takes each call as `talk` says; gives its stream's address."""

    async def take(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(CalledBot(request, socket))
        await socket.close()
        return socket

    async with serving(web.get("/ws", take)) as host:
        yield f"ws://{host}/ws"


@asynccontextmanager
async def phone_to_echo_bot(call: ModuleType) -> AsyncIterator[PhoneServer]:
    """Serves the example bot, which takes only signed requests, and a phone that calls it."""
    port = free_port()
    async with phone_to(f"http://127.0.0.1:{port}/", auth_token=TOKEN) as phone:
        settings = call.Settings(
            account_sid=ACCOUNT_SID,
            auth_token=TOKEN,
            base_url=phone.url,
            public_url=f"http://127.0.0.1:{port}",
            end_silence_secs=0,
        )
        config = uvicorn.Config(
            call.create_app(settings), port=port, log_level="warning", lifespan="off"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield phone
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def phone_to(url: str, **settings: Any) -> AsyncIterator[PhoneServer]:
    """Serves a phone that calls a bot."""
    async with PhoneServer(Bot(url, ACCOUNT_SID, **settings)) as phone:
        yield phone


class Page:
    """What a page hears and says, without a browser; its PCM has 16 kHz."""

    RATE = 16000

    def __init__(self, phone: PhoneServer, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._phone = phone
        self._socket = socket
        self.events: list[dict[str, Any]] = []
        self.heard = bytearray()

    async def order(self, do: str, **details: Any) -> None:
        """Does what a person would do on the page."""
        await self._socket.send_json({"do": do, **details})

    async def call(self) -> None:
        """Presses call, and waits until the bot is there."""
        await self.order("call", rate=self.RATE)
        await self.event("talking")

    async def event(self, name: str) -> dict[str, Any]:
        """Waits for the next event of a kind."""
        async with asyncio.timeout(WAIT_SECS):
            while True:
                message = await self._socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.heard += message.data
                    continue
                self.events.append(json.loads(message.data))
                if self.events[-1]["event"] == name:
                    return self.events[-1]

    async def send(self, pcm: bytes) -> None:
        """Sends PCM, as the page does every 20 ms."""
        await self._socket.send_bytes(pcm)

    async def say(self, pcm: bytes) -> None:
        """Says PCM at the pace of speech."""
        step_bytes = 2 * self.RATE // 50
        for at in range(0, len(pcm), step_bytes):
            await self.send(pcm[at : at + step_bytes])
            await self.event("step")

    async def get(self, path: str) -> bytes:
        """Gets a file from the phone."""
        async with aiohttp.ClientSession() as session, session.get(self._phone.url + path) as got:
            assert got.status == 200, got.status
            return await got.read()

    async def recording(self) -> tuple[np.ndarray, np.ndarray]:
        """Gets the recording of the last call: its two legs."""
        (call,) = [event for event in self.events if event["event"] == "calling"][-1:]
        with wave.open(io.BytesIO(await self.get(f"/recordings/{call['call_sid']}.wav"))) as wav:
            assert wav.getparams()[:3] == (2, 2, 8000)
            samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
        return samples[::2].astype(float), samples[1::2].astype(float)


@asynccontextmanager
async def page_of(phone: PhoneServer) -> AsyncIterator[Page]:
    """Opens a page of a phone."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{phone.url}/page", origin=phone.url) as socket,
    ):
        page = Page(phone, socket)
        await page.event("ready")
        yield page


@asynccontextmanager
async def page_to(talk: Talk, **settings: Any) -> AsyncIterator[Page]:
    """Serves a bot that takes each call as `talk` says; opens a page of a phone that calls it."""
    async with bot_that(talk) as url, phone_to(url, **settings) as phone, page_of(phone) as page:
        yield page


def speech(secs: float = 1.5) -> bytes:
    """Returns the beginning of the examples' speech, 16 kHz; it has 3.3 s."""
    with wave.open(str(EXAMPLES / "speech.wav")) as wav:
        assert wav.getparams()[:3] == (1, 2, Page.RATE)
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
    """Tells whether half a second of what was said is heard; a busy machine breaks up the rest."""
    pieces = [said[at : at + 4000] for at in range(0, len(said) - 3999, 4000)]  # 8 kHz
    return max(likeness(piece, heard) for piece in pieces) > 0.95


async def vanishes(bot: CalledBot) -> None:
    """Breaks the connection during the call."""
    await bot.answer()
    await bot.send(event="clear")
    bot.request.transport.abort()


async def closes_at_once(bot: CalledBot) -> None:
    """Refuses the call."""
    await bot.socket.close(code=1008)


async def sends_garbage(bot: CalledBot) -> None:
    """Sends a message that Twilio would not accept."""
    await bot.answer()
    await bot.socket.send_str("garbage")
    await bot.read("stop")


async def sends_nothing(bot: CalledBot) -> None:
    """Only receives."""
    await bot.read("stop")
