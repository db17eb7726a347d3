"""A loopback stand-in for Twilio's REST API, or for a proxy on the way to it."""

import asyncio
import base64
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from pipecat_twilio.twilio.call_resource import CallResource

ACCOUNT, CALL = "AC" + "a1" * 16, "CA" + "b2" * 16
KEY = "SK" + "c3" * 16
TOKEN, SECRET = "auth-token-that-stays-secret", "key-secret-that-stays-secret"
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"
BASIC = "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


class Answer(NamedTuple):
    """What the server sends, and whether it then keeps the connection open."""

    data: bytes
    held: bool = False


class Request(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Server:
    """A loopback stand-in for Twilio's API, or a proxy; it repeats the last scripted answer."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.after_connect = b""
        self.arrived, self.released = asyncio.Event(), asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # the client has left
            await self.answer(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
        self.requests.append(Request(head[0], headers, body))
        self.arrived.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        # In two pieces, so that a reader has to ask twice.
        middle = max(answer.data.rfind(b"\r\n\r\n") + 4, len(answer.data) - 5)
        for piece in (answer.data[:middle], answer.data[middle:]):
            writer.write(piece)
            await asyncio.sleep(0.005)
        if head[0].startswith("CONNECT"):
            self.after_connect = await reader.read(1)
        if answer.held:
            await self.released.wait()


def reply(
    status: int, text: str | bytes = "", length: int | None = None, held: bool = False, **headers
) -> Answer:
    body = text.encode() if isinstance(text, str) else text
    headers = {"Content_Length": len(body) if length is None else length, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Answer("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body, held)


def call(server: Server, **changes: Any) -> CallResource:
    arguments = {"account_sid": ACCOUNT, "call_sid": CALL, "base_url": server.url}
    return CallResource(**({"auth_token": TOKEN} if not changes else {}) | arguments | changes)


BOTH_KINDS = pytest.mark.parametrize(
    ("credentials", "login"),
    [
        ({"auth_token": TOKEN}, f"{ACCOUNT}:{TOKEN}"),
        ({"api_key_sid": KEY, "api_key_secret": SECRET}, f"{KEY}:{SECRET}"),
    ],
)
