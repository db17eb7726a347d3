"""The phone's web server: the page, the page's WebSocket, a stand-in for Twilio's REST API.

It serves this machine only, and its own page only: a foreign site's script can reach loopback too,
by its own origin or by a host name that it makes lead here.
"""

import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp import web
from dialing import Bot
from page_line import PageLine

if TYPE_CHECKING:
    from phone_call import PhoneCall

HERE = Path(__file__).parent
FILES = {
    "/": HERE / "page.html",
    "/page.css": HERE / "page.css",
    "/page.js": HERE / "page.js",
    "/speech.wav": HERE.parent / "speech.wav",
}
HEARTBEAT_SECS = 10  # by then it is noticed that a page is gone
MAX_MESSAGE_BYTES = 1 << 16  # from the page: 20 ms of PCM at 192 kHz are 7680

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PhoneServer:
    """Serves the phone.

    Args:
        bot: Whom it calls.
        host: The name or address that it listens on.
        port: The port, 0 for a free one.
    """

    def __init__(self, bot: Bot, host: str = "127.0.0.1", port: int = 0) -> None:
        self.bot = bot
        self._host = host
        self._port = port
        self._calls: dict[str, PhoneCall] = {}  # those that go on, by SID
        self._last_calls: dict[str, PhoneCall] = {}  # each page's last one, by SID
        self._sockets: set[web.WebSocketResponse] = set()  # those of open pages
        app = web.Application(middlewares=[self._guard])
        for path in FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/page", self._page)
        app.router.add_get("/recordings/{call_sid}.wav", self._recording)
        app.router.add_post("/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in list(self._sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The page's address, and the `base_url` of the REST API."""
        return f"http://{self._authority(self._host)}"

    def _authority(self, name: str) -> str:
        return f"[{name}]:{self._port}" if ":" in name else f"{name}:{self._port}"  # IPv6

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        names = {self._host, "localhost", "127.0.0.1"}
        origin = request.headers.get("Origin")
        if request.host not in map(self._authority, names):
            raise web.HTTPForbidden(text="This phone is for its own address only.\n")
        if origin is not None and origin != f"http://{request.host}":
            raise web.HTTPForbidden(text="This phone is for its own page only.\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(FILES[request.path])

    async def _recording(self, request: web.Request) -> web.StreamResponse:
        call = self._last_calls.get(request.match_info["call_sid"])
        if call is None:
            raise web.HTTPNotFound(text="The recording is kept until the next call.\n")
        disposition = {"Content-Disposition": 'attachment; filename="call.wav"'}
        return web.Response(
            body=call.recording.wav(), content_type="audio/wav", headers=disposition
        )

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        """Ends a call as Twilio's REST API does.

        Source: https://www.twilio.com/docs/voice/api/call-resource#update-a-call-resource
        """
        account_sid, call_sid = request.match_info["account_sid"], request.match_info["call_sid"]
        if not self._may_end_calls(request.headers.get("Authorization", "")):
            return web.json_response({"code": 20003, "message": "Authenticate"}, status=401)
        call = self._calls.get(call_sid)
        if call is None or account_sid != self.bot.account_sid:
            return web.json_response({"code": 20404, "message": "not found"}, status=404)
        if (await request.post()).get("Status") != "completed":
            return web.json_response({"code": 20001, "message": "Status"}, status=400)
        call.hang_up("The bot hung up.")
        return web.json_response({"sid": call_sid, "status": "completed"})

    def _may_end_calls(self, authorization: str) -> bool:
        """Checks an auth token; accepts any API key, since its secret is not known here."""
        try:
            login = b64decode(authorization.removeprefix("Basic "), validate=True).decode()
        except ValueError:
            return False
        name, _, password = login.partition(":")
        if name.startswith("SK") or not self.bot.auth_token:
            return bool(name and password)
        own_login = f"{self.bot.account_sid}:{self.bot.auth_token}"
        return hmac.compare_digest(login.encode(), own_login.encode())

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """Talks with one page: events as JSON, PCM of both legs as binary messages."""
        if "Origin" not in request.headers:
            raise web.HTTPForbidden(text="This is for a browser only.\n")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECS, max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await PageLine(socket, self.bot, self._calls, self._last_calls).run()
        finally:
            self._sockets.remove(socket)
        return socket
