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


