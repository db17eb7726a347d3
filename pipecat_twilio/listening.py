"""The socket of a `TwilioTransport`: reading on to the end, and a peer that reads nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from loguru import logger
from pipecat.transports.websocket import fastapi


class TwilioClient(fastapi.FastAPIWebsocketClient):
    """Pipecat's client, which tells the output when there is nobody any more."""

    output: Any  # a `TwilioOutputTransport`
    _is_stuck = False
    _close_code: int | None = None

    def __init__(self, websocket: Any, callbacks: Any, params: Any) -> None:
        super().__init__(websocket, callbacks, params.ws_close_timeout)
        self._socket, self._params = websocket, params

    @property
    def is_connected(self) -> bool:
        """Whether there is a peer that reads."""
        return super().is_connected and not self._is_stuck

    async def receive(self) -> AsyncIterator[str | bytes]:
        """Yields the messages until the socket is closed."""
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            if data := message.get("text") or message.get("bytes"):
                yield data
        self._close_code = message.get("code")

    async def trigger_client_disconnected(self) -> None:
        """Tells the output, then triggers the event."""
        await self.output.caller_left(self._close_code)
        await super().trigger_client_disconnected()  # type: ignore[no-untyped-call]

    async def send(self, data: str | bytes) -> None:
        """Sends a message; if that takes longer than the limit, the peer counts as gone."""
        limit_secs = self._params.audio_out_write_timeout_secs
        try:
            async with asyncio.timeout(limit_secs):
                await super().send(data)
        except TimeoutError:
            if not self._is_stuck:
                self._is_stuck = True
                logger.error(f"{self.output}: the peer has read nothing for {limit_secs} s")
                await self.output.caller_left(None)


class TwilioInputTransport(fastapi.FastAPIWebsocketInputTransport):
    """Pipecat's input, which reads on after `EndFrame`: pings, marks, and a caller who leaves."""

    async def stop(self, frame: Any) -> None:
        """Drops the caller's audio. The socket is read until the output closes it."""
        await self.pause(frame)
        # Closes nothing before the output does the same.
        await self._client.disconnect()  # type: ignore[no-untyped-call]
