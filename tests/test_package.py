"""The package from outside: what an import loads, and the vector paths of the compiled modules."""

import json
import os
import random
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import pipecat_twilio
from pipecat_twilio import SincResampler
from pipecat_twilio.audio import ulaw

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "pipecat_twilio"


def run(program: str, **environment: str) -> str:
    """Runs a program in a new Python; returns what it prints."""
    command = [sys.executable, "-c", program]
    env = os.environ | environment
    return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout


def loaded_by(statement: str) -> set[str]:
    """Returns the top-level modules that are loaded after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    return {name.split(".")[0] for name in json.loads(run(program))}


@pytest.mark.parametrize(
    ("names", "not_loaded"),
    [
        ("SincResampler, is_valid_signature, ulaw", {"pipecat", "aiohttp", "msgspec", "loguru"}),
        ("messages", {"pipecat", "aiohttp"}),
        ("ulaw", {"numpy"}),
    ],
)
def test_an_import_loads_only_what_it_needs(names: str, not_loaded: set[str]) -> None:
    assert not not_loaded & loaded_by(f"from pipecat_twilio import {names}")


def test_the_public_names_are_there_and_no_others() -> None:
    names = (
        "MarkFrame SincResampler SincStreamResampler TwilioFrameSerializer TwilioTransport "
        "install is_valid_signature messages ulaw uninstall"
    )
    assert pipecat_twilio.__all__ == names.split()
    for name in pipecat_twilio.__all__:
        assert getattr(pipecat_twilio, name).__name__.split(".")[-1] == name
    assert set(pipecat_twilio.__all__) <= set(dir(pipecat_twilio))
    stub = SOURCE.joinpath("__init__.pyi").read_text()
    assert set(re.findall(r" as (\w+)", stub)) == set(pipecat_twilio.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Playback'"):
        pipecat_twilio.Playback  # noqa: B018


def test_names_are_the_same_whatever_was_imported_before() -> None:
    program = """
import pipecat_twilio.installer, pipecat_twilio.audio.ulaw, pipecat_twilio.twilio.messages
from pipecat_twilio import install, messages, ulaw
print(callable(install), callable(messages.parse), callable(ulaw.encode))
"""
    assert run(program) == "True True True\n"


def test_the_version_is_that_of_the_distribution() -> None:
    assert pipecat_twilio.__version__ == version("pipecat-twilio")


def sources() -> dict[str, str]:
    """Returns the source of every module of the package, the compiled ones included."""
    paths = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.pyx")]
    return {
        str(path.relative_to(SOURCE).with_suffix("")).replace(os.sep, "."): path.read_text()
        for path in paths
    }


# What a module must not import, by its layer: imports go downwards.
FOREIGN = {
    "audio": r"pipecat_twilio(?!\.audio)|pipecat\b|aiohttp|msgspec|loguru|pydantic",
    "twilio": r"pipecat_twilio(?!\.(audio|twilio))|pipecat\b|pydantic",
}


def test_a_module_imports_only_from_its_own_layer_and_those_below_and_a_library_in_one_place():
    users = defaultdict(set)
    for name, source in sources().items():
        pattern = re.compile(r"^ *(?:from|import) +([\w.]+)(?: c?import +(.*))?", re.MULTILINE)
        for module, parts in pattern.findall(source):
            users[module.partition(".")[0]].add(name)
            foreign = FOREIGN.get(name.partition(".")[0], "$")
            for part in (f"{module}.{part.strip()}" for part in parts.split(",")):
                assert not re.match(foreign, part), f"{name} imports {part}"
    assert users["aiohttp"] == {"twilio.hangup"}
    assert users["numpy"] == {"audio.filter_design", "audio.samples"}
    assert users["msgspec"] == {"twilio.messages"}


def test_the_baseline_path_differs_from_this_machines_own_by_one_step_at_most() -> None:
    """That is what machines without AVX2 run; the choice is made when a module loads."""
    program = """
import random
from pipecat_twilio import SincResampler
from pipecat_twilio.audio import resampler, ulaw
assert resampler.vector_path == ulaw.vector_path != "avx2"
pcm = random.Random(1).randbytes(40_000)
print(ulaw.encode(pcm).hex())
for rates in [(8000, 16000), (8000, 24000), (24000, 8000), (48000, 8000), (44100, 8000)]:
    print(rates[0], rates[1], SincResampler(*rates).process(pcm).hex())
"""
    encoded, *lines = run(program, PIPECAT_TWILIO_VECTORS="baseline").splitlines()
    pcm = random.Random(1).randbytes(40_000)
    assert bytes.fromhex(encoded) == ulaw.encode(pcm)
    for in_rate, out_rate, resampled in map(str.split, lines):
        ours = np.frombuffer(SincResampler(int(in_rate), int(out_rate)).process(pcm), "<i2")
        theirs = np.frombuffer(bytes.fromhex(resampled), "<i2")
        assert np.abs(ours.astype(int) - theirs).max() <= 1
