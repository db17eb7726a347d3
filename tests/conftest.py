"""What all tests share: the header, the log, and proof that the installed wheel is tested."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings
from loguru import logger

import pipecat_twilio
from pipecat_twilio.audio import resampler, ulaw

SOURCE = Path(__file__).parent.parent / "pipecat_twilio"

# The same examples on every run, and few enough for every run; `--hypothesis-profile=long` has
# many more, and new ones each time.
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("long", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """Ignores warnings of deprecated parts that uvicorn and Pipecat's TTS services use."""
    for message in ("websockets", "The `websockets`", "remove second argument", ".*AudioContext"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


def pytest_report_header() -> str:
    """Names what is under test."""
    names = ("pipecat-twilio", "pipecat-ai", "numpy", "msgspec", "aiohttp")
    paths = f"vector paths: ulaw {ulaw.vector_path}, resampler {resampler.vector_path}"
    return ", ".join([*(f"{name} {version(name)}" for name in names), paths])


def pytest_sessionstart() -> None:
    """Refuses to test the source tree: that would hide a file that is missing in the wheel."""
    if Path(pipecat_twilio.__file__).is_relative_to(SOURCE):
        pytest.exit("install the wheel and set PYTHONSAFEPATH=1: this is the source tree", 3)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All lines logged during the test, each beginning with its level."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="TRACE")
    yield lines
    logger.remove(sink)
