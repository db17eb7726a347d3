"""The REST server that the tests of the hang-up share."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rest_server import Server

from pipecat_twilio.twilio import hangup


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    scripted = Server()
    tasks: list[asyncio.Task[None]] = []

    def accept(*streams: Any) -> None:
        tasks.append(asyncio.create_task(scripted.serve(*streams)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    scripted.port = listening.sockets[0].getsockname()[1]
    yield scripted
    scripted.released.set()
    listening.close()
    await asyncio.gather(*tasks)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the pauses a hundred times shorter, and removes this machine's proxy settings."""
    monkeypatch.setattr(hangup, "_FIRST_PAUSE_SECS", hangup._FIRST_PAUSE_SECS / 100)
    monkeypatch.setattr(hangup, "_MAX_BODY_SECS", 0.2)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
