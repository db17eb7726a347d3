"""Feeds the serializer with messages from libFuzzer, which sees the lines that they reach.

Run by `tox -e fuzz`. An input is a conversation with a message on each line. An input that breaks
a promise is left in the corpus, and test_properties.py tests it from then on.
"""

import asyncio
import sys
from pathlib import Path
from tempfile import mkdtemp

import atheris
from loguru import logger

with atheris.instrument_imports(include=["pipecat_twilio"]):
    from streams import check_that_audio_survives

    import pipecat_twilio.serializer  # noqa: F401  # which the check imports when it runs

runner = asyncio.Runner()


def converse(data: bytes) -> None:
    """Makes the serializer read every message as bytes, and as text."""
    lines = data.split(b"\n")
    runner.run(check_that_audio_survives(lines))
    runner.run(check_that_audio_survives(line.decode(errors="replace") for line in lines))


logger.remove()  # a line for each dropped message
# What breaks a promise is kept in the corpus.
HERE = Path(__file__).parent
corpus = HERE / "corpus"
options = [f"-dict={HERE / 'messages.dict'}", f"-artifact_prefix={corpus}/"]
atheris.Setup([*sys.argv, *options, mkdtemp(), str(corpus)], converse)
atheris.Fuzz()
