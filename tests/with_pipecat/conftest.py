"""What the tests of the serializer share: its clock."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The serializer's clock, which the test sets."""
    clock = SimpleNamespace(now=100.0)
    for module in ("serializer", "call_ending"):
        monkeypatch.setattr(f"pipecat_twilio.{module}.monotonic", lambda: clock.now)
    return clock
