"""What these tests share: the serializer's clock, and calls in virtual time."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from virtual_call import Bot, Play, VirtualLoop, in_virtual_time, running_bot


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The serializer's clock, which the test sets."""
    clock = SimpleNamespace(now=100.0)
    for module in ("serializer", "call_ending"):
        monkeypatch.setattr(f"pipecat_twilio.{module}.monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def play(monkeypatch) -> Play:
    """Runs a scenario with a bot in virtual time, and returns the bot."""

    def run(scenario: Callable[[Bot, VirtualLoop], Any], *args: Any, **kwargs: Any) -> Bot:
        async def main(loop: VirtualLoop) -> Bot:
            async with running_bot(loop.time, *args, **kwargs) as bot:
                await scenario(bot, loop)
            return bot

        return in_virtual_time(monkeypatch, main)

    return run
