"""What these tests share: the serializer's clock, and calls in virtual time."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.audio.dtmf.utils import load_dtmf_audio
from virtual_bot import Bot, Play, running_bot
from virtual_call import RATE, in_virtual_time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The serializer's clock, which the test sets."""
    clock = SimpleNamespace(now=100.0)
    for module in ("serializer", "call_ending"):
        monkeypatch.setattr(f"pipecat_twilio.{module}.monotonic", lambda: clock.now)
    return clock


@pytest.fixture(scope="session")
def keys() -> None:
    """Has Pipecat read the tones of all keys, for which it needs a thread, and so real time."""

    async def read() -> None:
        for key in KeypadEntry:
            await load_dtmf_audio(key, sample_rate=RATE)

    asyncio.run(read())


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, keys: None) -> Play:
    """Runs a scenario with a bot in virtual time, and returns the bot."""

    def run(scenario: Callable[[Bot], Any], *args: Any, **kwargs: Any) -> Bot:
        async def main(_: Any) -> Bot:
            async with running_bot(*args, **kwargs) as bot:
                await scenario(bot)
            return bot

        return in_virtual_time(monkeypatch, main)

    return run
