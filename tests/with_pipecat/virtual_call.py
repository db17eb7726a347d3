"""Virtual time, and Twilio in it: what was sent when, and what was heard.

Time passes only while everything waits. So every result is exact, and two hours take seconds.
"""

import asyncio
import json
import selectors
import sys
from base64 import b64decode
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from pipecat.processors.audio import audio_buffer_processor
from pipecat.transports import base_output
from pipecat.transports.websocket import fastapi
from starlette.websockets import WebSocketState

RATE = 8000
CHUNK_SECS = 0.04  # of an output frame: audio_out_10ms_chunks is 4
TIMER_SECS = 0.002
END_SECS = 0.03  # the call is over so close to the end of the last word
EARLY_SECS, LATE_SECS = 0.036, 0.032  # of a push, against when the caller hears it


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[Any]:
                events = super().select(0)
                if not events:
                    assert timeout is not None, "everything waits for nothing"
                    loop.now += timeout
                return events

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def in_virtual_time(monkeypatch: pytest.MonkeyPatch, main: Callable[[VirtualLoop], Any]) -> Any:
    """Runs a coroutine function that takes the loop; all clocks are the loop's."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, monkeypatch.context() as patch:
        loop = cast("VirtualLoop", runner.get_loop())
        for name, module in list(sys.modules.items()):
            if name.startswith("pipecat_twilio.") and hasattr(module, "monotonic"):
                patch.setattr(module, "monotonic", loop.time)
        clocks = SimpleNamespace(monotonic=loop.time, time=loop.time)
        for module in (fastapi, base_output, audio_buffer_processor):
            patch.setattr(sys.modules[module.__name__], "time", clocks)
        return runner.run(main(loop))


def stall(loop: VirtualLoop, secs: float, every_secs: float = 0) -> None:
    """Holds the event loop up, once or again and again."""
    loop.now += secs
    if every_secs:
        loop.call_later(every_secs - secs, stall, loop, secs, every_secs)


class Piece(NamedTuple):
    """A message's audio, and when it was heard."""

    begin: float
    end: float
    ulaw: bytes

    @property
    def heard(self) -> bytes:
        return self.ulaw[: round((self.end - self.begin) * RATE)]


class Twilio:
    """The other end of the socket: it plays audio in order, and sends marks back."""

    headers: dict[str, str] = {}  # noqa: RUF012
    client_state = application_state = WebSocketState.CONNECTED

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.received: list[tuple[float, dict[str, Any]]] = []
        self.plays: list[Piece] = []
        self.levels: list[float] = []  # seconds unplayed after each piece came
        self.closed_at: float | None = None
        self.sends: asyncio.Queue[str | int] = asyncio.Queue()  # what the bot receives
        self.send_secs = 0.0  # how long the bot's `send` takes; infinity if it never returns

    async def send_text(self, text: str) -> None:
        if self.send_secs == inf:
            await asyncio.Event().wait()
        elif self.send_secs:
            await asyncio.sleep(self.send_secs)
        now, message = self._loop.time(), json.loads(text)
        self.received.append((now, message))
        if message["event"] == "media":
            ulaw = b64decode(message["media"]["payload"])
            begin = now + self.unplayed_secs
            self.plays.append(Piece(begin, begin + len(ulaw) / RATE, ulaw))
            self.levels.append(self.unplayed_secs)
        elif message["event"] == "mark":
            self._loop.call_later(self.unplayed_secs, self.sends.put_nowait, text)
        elif message["event"] == "clear":
            self.plays = [p._replace(end=min(p.end, now)) for p in self.plays if p.begin < now]

    async def receive(self) -> dict[str, Any]:
        sent = await self.sends.get()
        if isinstance(sent, str):
            return {"type": "websocket.receive", "text": sent}
        self.client_state = WebSocketState.DISCONNECTED
        return {"type": "websocket.disconnect", "code": sent}

    async def close(self) -> None:
        self.closed_at = self._loop.time()
        self.application_state = WebSocketState.DISCONNECTED
        self.sends.put_nowait(1000)

    @property
    def unplayed_secs(self) -> float:
        return max(0, self.plays[-1].end - self._loop.time()) if self.plays else 0

    def times(self, event: str) -> list[float]:
        """When each message of a kind came."""
        return [at for at, message in self.received if message["event"] == event]

    @property
    def heard_until(self) -> float:
        return self.plays[-1].end

    @property
    def silences(self) -> list[float]:
        """How long each silence between two pieces was, in seconds."""
        pairs = zip(self.plays, self.plays[1:], strict=False)
        return [
            after.begin - before.end for before, after in pairs if after.begin > before.end + 1e-6
        ]

    def heard_secs(self, number: int) -> float:
        """How much was heard of what `words` with this number returned."""
        heard = np.frombuffer(b"".join(piece.heard for piece in self.plays), np.uint8)
        return float(np.count_nonzero(heard // 8 == number)) / RATE
