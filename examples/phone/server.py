"""The phone's web server: the page, the page's WebSocket, a stand-in for Twilio's REST API.

It serves this machine only, and its own page only: a foreign site's script can reach loopback too,
by its own origin or by a host name that it makes lead here.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from dialing import CalledBot
from listening import SPEECH
from rest_api import RestApi

from phone.call import PhoneCall

HERE = Path(__file__).parent
FILES = {
    "/": HERE / "page.html",
    "/page.css": HERE / "page.css",
    "/page.js": HERE / "page.js",
    "/speech.wav": SPEECH,
}
KEYS = frozenset("0123456789*#")
# Hz; of a browser's audio, which has the rate of the machine's sound card.
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176_400, 192_000)
HEARTBEAT_SECS = 10  # by then it is noticed that a page is gone
MAX_MESSAGE_BYTES = 1 << 16  # from the page: 20 ms of PCM at 192 kHz are 7680

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PhoneServer:
    """Serves the phone on loopback: browsers give a microphone to no other address over HTTP.

    Args:
        bot: Whom it calls.
        port: The port to listen on, 0 for a free one.
    """

    def __init__(self, bot: CalledBot, port: int = 0) -> None:
        self._bot = bot
        self._port = port
        self._calls: dict[str, PhoneCall] = {}  # each open page's last one, by SID
        self._sockets: set[web.WebSocketResponse] = set()  # those of open pages
        app = web.Application(middlewares=[self._guard])
        for path in FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/page", self._page)
        app.router.add_get("/recordings/{call_sid}.wav", self._recording)
        api = RestApi(bot.account_sid, bot.auth_token, self._hang_up)
        app.router.add_post(RestApi.PATH, api.update)
        self._runner = web.AppRunner(app, shutdown_timeout=1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in list(self._sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The page's address, and the `base_url` of the REST API."""
        return f"http://127.0.0.1:{self._port}"

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            raise web.HTTPForbidden(text="This phone is for its own address only.\n")
        if request.headers.get("Origin") not in (None, f"http://{request.host}"):
            raise web.HTTPForbidden(text="This phone is for its own page only.\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(FILES[request.path])

    async def _recording(self, request: web.Request) -> web.StreamResponse:
        call = self._calls.get(request.match_info["call_sid"])
        if call is None:
            raise web.HTTPNotFound(text="The recording is kept until the next call.\n")
        disposition = {"Content-Disposition": 'attachment; filename="call.wav"'}
        return web.Response(body=call.recording(), content_type="audio/wav", headers=disposition)

    def _hang_up(self, call_sid: str) -> bool:
        call = self._calls.get(call_sid)
        return call is not None and call.hang_up("The bot hung up.")

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """Talks with one page: orders and events as JSON, PCM of both legs as binary messages."""
        if "Origin" not in request.headers:
            raise web.HTTPForbidden(text="This is for a browser only.\n")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECS, max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await _Line(socket, self._bot, self._calls).run()
        finally:
            self._sockets.remove(socket)
        return socket


class _Line:
    """The line to one open page, which makes one call at a time."""

    def __init__(
        self, socket: web.WebSocketResponse, bot: CalledBot, calls: dict[str, PhoneCall]
    ) -> None:
        self._socket = socket
        self._bot = bot
        self._calls = calls
        self._call: PhoneCall | None = None
        self._last_call_sid = ""

    async def run(self) -> None:
        """Does what the page asks for, until it closes."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._tell("ready", bot=self._bot.url)
                async for message in self._socket:
                    if message.type is aiohttp.WSMsgType.BINARY and self._call is not None:
                        self._call.hear(message.data)
                    elif message.type is aiohttp.WSMsgType.TEXT:
                        await self._do(json.loads(message.data), group)
                if self._call is not None:
                    self._call.hang_up("The page was closed.")
        finally:
            self._calls.pop(self._last_call_sid, None)

    async def _do(self, order: Any, group: asyncio.TaskGroup) -> None:
        match order, self._call:
            case {"do": "call", "rate": int(rate)}, None if rate in RATES:
                self._call = PhoneCall(self._bot, rate, tell=self._tell, play=self._play)
                group.create_task(self._make(self._call))
            case {"do": "call", "rate": rate}, None:
                text = f"The phone cannot be used with a sound card of {rate} Hz: it needs one of "
                await self._tell("ended", text=text + f"{', '.join(map(str, RATES))} Hz.")
            case {"do": "press", "key": str(key)}, PhoneCall() as call if key in KEYS:
                call.keys.append(key)
            case {"do": "hang up"}, PhoneCall() as call:
                call.hang_up("You hung up.")

    async def _make(self, call: PhoneCall) -> None:
        self._calls.pop(self._last_call_sid, None)
        self._last_call_sid = call.call_sid
        self._calls[call.call_sid] = call
        await self._tell("calling", call_sid=call.call_sid)
        sentence = await call.run()
        self._call = None
        await self._tell("ended", text=sentence)

    async def _tell(self, event: str, **details: Any) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):  # a closed page hears nothing
            await self._socket.send_json({"event": event, **details})

    async def _play(self, pcm: bytes) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            await self._socket.send_bytes(pcm)
