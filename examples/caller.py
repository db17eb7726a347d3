"""The simulated caller: dials a bot the way Twilio does, and records what went over the wire."""

import asyncio
import functools
import itertools
import json
import re
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import unescape

import aiohttp
import uvicorn
import websockets
from aiohttp import web
from fastapi import FastAPI
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Scenario
from streamdouble.session import Session, SessionConfig, SessionResult

ACCOUNT_SID = "AC" + "0" * 32
MAX_LATENESS_MS, TRIES = 15, 3  # of the caller: above this the machine was too busy
KEY_SID, KEY_SECRET = "SK" + "0" * 32, "not a secret"

# Twilio does not offer to compress its messages; streamdouble has no option for it.
websockets.connect = functools.partial(websockets.connect, compression=None)  # type: ignore[misc]


class CallError(Exception):
    """A call that could not be placed; the text says why in one sentence."""


@dataclass
class WireLog:
    """All messages of a call with their times; streamdouble takes it for one of its traces."""

    sent: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def note_out(self, message: dict[str, Any], at: float) -> None:
        """Records a message to the bot."""
        self.sent.append((at, message))

    def note_in(self, message: str, at: float, parsed: dict[str, Any] | None = None) -> None:
        """Records a message from the bot."""
        self.received.append((at, parsed or json.loads(message)))

    def lateness_ms(self) -> float:
        """How late the caller was at worst: the longest time between messages, less 20 ms."""
        times = [at for at, message in self.sent if message["event"] == "media"]
        return 1000 * max(b - a for a, b in itertools.pairwise(times)) - 20

    def pressed_at(self, key: str) -> float:
        """When a key was pressed; infinity if it was not."""
        keys = (at for at, message in self.sent if message.get("dtmf", {}).get("digit") == key)
        return next(keys, float("inf"))


class RestApi:
    """A stand-in for Twilio's REST API that can only end a call."""

    def __init__(self) -> None:
        """Starts without calls."""
        self.ended: set[str] = set()

    async def update(self, request: web.Request) -> web.Response:
        """Ends a call, if the request is the documented one."""
        key = aiohttp.encode_basic_auth(KEY_SID, KEY_SECRET)
        if request.headers.get("Authorization") != key:
            return web.json_response({"code": 20003}, status=401)
        if (await request.post()).get("Status") != "completed":
            return web.json_response({"code": 20001}, status=400)
        self.ended.add(request.match_info["call"])
        return web.json_response({"status": "completed"})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serves it on loopback; gives its root URL."""
        app = web.Application()
        app.router.add_post("/2010-04-01/Accounts/{account}/Calls/{call}.json", self.update)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def stream_url(webhook: str, call_sid: str) -> str:
    """Asks a voice webhook what to do with a call; returns the URL to stream it to.

    Raises:
        CallError: Nobody answers there, or not with a stream.
    """
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(webhook, data={"CallSid": call_sid}) as response,
        ):
            twiml = await response.text()
    except (aiohttp.ClientError, ValueError) as error:
        raise CallError(f"nobody answers the webhook {webhook}: {error}") from None
    stream = re.search(r'<Stream\b[^>]*\burl="([^"]*)"', twiml)
    if stream is None:
        raise CallError(f"{webhook} answered {response.status}, and no <Stream>: {twiml[:80]!r}")
    return unescape(stream[1], {"&quot;": '"'})


async def place_stream_call(
    url: str,
    scenario: Scenario,
    identity: StreamIdentity | None = None,
    parameters: dict[str, str] | None = None,
) -> tuple[WireLog, SessionResult]:
    """Calls a bot's socket and runs the script; `parameters` are the TwiML's `<Parameter>`s.

    Raises:
        CallError: There is no Media Streams server.
    """
    log = WireLog()
    config = SessionConfig(
        trace=log,  # type: ignore[arg-type]
        response_timeout_s=1,
        custom_parameters=parameters or {},
    )
    session = Session(url, scenario=scenario, config=config, identity=identity)
    try:
        result = await session.run()
    except ssl.SSLError:
        raise CallError(f"{url} does not speak TLS: try it with ws:// for wss://") from None
    except websockets.InvalidURI:
        raise CallError(f"{url} is no ws:// or wss:// address") from None
    except (websockets.InvalidHandshake, EOFError) as error:
        raise CallError(f"{url} is no Media Streams server: {error}") from None
    except OSError as error:  # a timeout is one too
        raise CallError(f"nobody listens at {url}: {error}") from None
    if not log.received:
        raise CallError(f"{url} took the call and sent nothing: is it a Media Streams server?")
    return log, result


async def place_call(webhook: str, scenario: Scenario) -> tuple[WireLog, SessionResult]:
    """Calls a bot by its voice webhook and runs the script.

    Raises:
        CallError: Nobody answers there, or there is no Media Streams server.
    """
    identity = StreamIdentity(account_sid=ACCOUNT_SID)
    url = await stream_url(webhook, identity.call_sid)
    return await place_stream_call(url, scenario, identity)


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[int]:
    """Serves a web application on loopback, in this event loop; gives its port."""
    config = uvicorn.Config(app, port=0, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@contextmanager
def serve_in_thread(app: FastAPI) -> Iterator[int]:
    """Serves a web application in a thread of its own, whose event loop may be held up."""
    ready, port = threading.Event(), 0
    loop, done = asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        nonlocal port
        async with serve(app) as port:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    ready.wait()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


async def wait_until_served(url: str) -> None:
    """Returns when a server that is starting answers; waits for a minute at most."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
