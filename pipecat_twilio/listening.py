"""The listening side of `TwilioTransport`: the socket is read until the output is done."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from loguru import logger
from pipecat.frames.frames import EndFrame, InputAudioRawFrame
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketClient,
    FastAPIWebsocketInputTransport,
)


class TwilioClient(FastAPIWebsocketClient):
    """Pipecat's client, which notices who closes the socket, and a peer that reads nothing."""

    output: Any  # the `TwilioOutputTransport`
    write_timeout_secs: float
    _close_code: int | None = None
    _is_stuck = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a peer that reads."""
        return super().is_connected and not self._is_stuck

    async def receive(self) -> AsyncIterator[str | bytes]:
        """Yields the messages until the socket is closed."""
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            if data := message.get("text") or message.get("bytes"):
                yield data
        self._close_code = message.get("code")

    async def send(self, data: str | bytes) -> None:
        """Sends a message. If that takes too long, the peer counts as gone."""
        try:
            async with asyncio.timeout(self.write_timeout_secs):
                await super().send(data)
        except TimeoutError:
            logger.error(f"{self}: the peer has read nothing for {self.write_timeout_secs} s")
            self._is_stuck = True
            await self.output.caller_left(None)

    async def trigger_client_disconnected(self) -> None:
        """Tells the output, then triggers the event."""
        await self.output.caller_left(self._close_code)
        await super().trigger_client_disconnected()


class TwilioInputTransport(FastAPIWebsocketInputTransport):
    """Pipecat's input, which reads on after `EndFrame`, for pings, marks, and a caller who leaves."""

    _has_stopped = False

    async def stop(self, frame: EndFrame) -> None:
        """Ends the caller's audio. The socket is read until the output closes it."""
        self._has_stopped = True
        # All but what FastAPIWebsocketInputTransport does, which is to stop reading.
        await super(FastAPIWebsocketInputTransport, self).stop(frame)
        await self._client.disconnect()  # closes nothing before the output does the same

    async def push_audio_frame(self, frame: InputAudioRawFrame) -> None:
        """Pushes the caller's audio, until the pipeline ends."""
        if not self._has_stopped:
            await super().push_audio_frame(frame)
