"""The input of the transport, against Pipecat's own."""

import asyncio
import json
from typing import Any
from unittest.mock import AsyncMock

import pytest
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame, InputAudioRawFrame, InputDTMFFrame, StopFrame
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from streams import documented, media
from virtual_call import Bot, Play, VirtualLoop

from pipecat_twilio import TwilioTransport
from pipecat_twilio.transport import check_pipecat


class Halving(BaseAudioFilter):
    """A filter that takes its time, and keeps every second frame."""

    count = 0

    async def start(self, sample_rate: int) -> None: ...

    async def stop(self) -> None: ...

    async def process_frame(self, frame: FilterControlFrame) -> None: ...

    async def filter(self, audio: bytes) -> bytes:
        await asyncio.sleep(0.01)
        self.count += 1
        return audio if self.count % 2 else b""


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 10),
        ({"audio_in_passthrough": False}, 0),
        ({"audio_in_enabled": False}, 0),
        ({"audio_in_filter": Halving}, 5),
    ],
)
def test_the_pipeline_gets_what_it_gets_from_pipecats(play: Play, params: Any, count: int) -> None:
    async def scenario(bot: Bot, _: VirtualLoop) -> None:
        for code in range(10):
            bot.twilio.sends.put_nowait(media(bytes([code]) * 160))
        bot.twilio.sends.put_nowait(json.dumps(documented("dtmf")))
        await asyncio.sleep(1)

    def heard(transport: type) -> list[Any]:
        made = {name: value() if value is Halving else value for name, value in params.items()}
        bot = play(scenario, transport, **{"audio_in_enabled": True} | made)
        assert len(bot.upstream.times(InputDTMFFrame)) == 1
        return [f.audio for _, f in bot.upstream.seen if isinstance(f, InputAudioRawFrame)]

    assert heard(TwilioTransport) == heard(FastAPIWebsocketTransport)
    assert len(heard(TwilioTransport)) == count


def test_a_stopped_pipeline_gets_nothing_more(play: Play) -> None:
    async def scenario(bot: Bot, _: VirtualLoop) -> None:
        bot.twilio.sends.put_nowait(media(bytes(160)))
        await asyncio.sleep(0.1)
        await bot.worker.queue_frame(StopFrame())
        await asyncio.sleep(0.1)
        await bot.transport.input().push_audio_frame(InputAudioRawFrame(bytes(320), 8000, 1))
        await asyncio.sleep(0.1)

    assert len(play(scenario, audio_in_enabled=True).upstream.times(InputAudioRawFrame)) == 1


class TestQueue:
    """Pipecat's queue is used only where something could hold the socket up."""

    async def is_queued(self, following: FrameProcessor, **params: Any) -> bool:
        settings = FastAPIWebsocketParams(audio_in_enabled=True, **params)
        received = TwilioTransport(AsyncMock(), settings).input()
        received._audio_in_queue = AsyncMock()
        received.push_frame = AsyncMock()
        received.link(following)
        await received.push_audio_frame(InputAudioRawFrame(bytes(320), 8000, 1))
        assert received._audio_in_queue.put.await_count + received.push_frame.await_count == 1
        return bool(received._audio_in_queue.put.await_count)

    async def test_a_processor_with_a_queue_needs_no_other(self) -> None:
        assert not await self.is_queued(IdentityFilter())

    async def test_a_processor_in_direct_mode_needs_it(self) -> None:
        assert await self.is_queued(IdentityFilter(enable_direct_mode=True))

    async def test_a_filter_needs_it(self) -> None:
        assert await self.is_queued(IdentityFilter(), audio_in_filter=Halving())


def test_a_pipecat_with_another_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def push_audio_frame(self: Any, frame: Any) -> None:
        await self._queue.put(frame)

    monkeypatch.setattr(BaseInputTransport, "push_audio_frame", push_audio_frame)
    with pytest.raises(RuntimeError, match="does not use _params, _paused, _audio_in_queue"):
        check_pipecat()
