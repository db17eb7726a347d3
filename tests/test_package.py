"""The package from outside: what an import loads, and the vector paths of the compiled modules."""

import json
import os
import random
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

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
    for name in defined_names() - set(pipecat_twilio.__all__):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(pipecat_twilio, name)


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


def defined_names() -> set[str]:
    """Returns the names of all functions and classes at the top of a module of the package."""
    pattern = re.compile(r"^(?:async def|def|cpdef|class|cdef class) +([a-zA-Z]\w*)", re.MULTILINE)
    names = {name for source in sources().values() for name in pattern.findall(source)}
    assert {"SincResampler", "Playback", "pcm_bytes", "install"} < names
    return names


class TestLayers:
    """Imports go downwards: Pipecat's layer uses Twilio's, and both use audio's."""

    MODULES: ClassVar = sources()
    FOREIGN: ClassVar = {
        "audio": r"pipecat_twilio(?!\.audio)|pipecat\b|aiohttp|msgspec|loguru|pydantic",
        "twilio": r"pipecat_twilio(?!\.(audio|twilio))|pipecat\b|pydantic",
    }

    def imports(self, name: str) -> set[str]:
        """Returns what a module imports, at its top or in a function."""
        pattern = re.compile(r"^ *(?:from|import) +([\w.]+)(?: c?import +(.*))?", re.MULTILINE)
        lines = pattern.findall(self.MODULES[name])
        return {module for module, _ in lines} | {
            f"{module}.{part.strip()}"
            for module, parts in lines
            if parts
            for part in parts.split(",")
        }

    @pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
    def test_a_module_imports_only_from_its_own_layer_and_those_below(self, name: str) -> None:
        foreign = self.FOREIGN[name.partition(".")[0]]
        assert not [i for i in self.imports(name) if re.match(foreign, i) and i != "pipecat_twilio"]

    @pytest.mark.parametrize(
        ("library", "users"),
        [
            ("aiohttp", {"twilio.hangup"}),
            ("numpy", {"audio.filter_design", "audio.samples"}),
            ("msgspec", {"twilio.messages"}),
        ],
    )
    def test_a_library_is_used_in_one_place(self, library: str, users: set[str]) -> None:
        using = {
            name
            for name in self.MODULES
            if any(i.partition(".")[0] == library for i in self.imports(name))
        }
        assert using == users


class TestTheBaselinePath:
    """The code that machines without AVX2 run; the choice is made when a module loads."""

    ENVIRONMENT = {"PIPECAT_TWILIO_VECTORS": "baseline"}  # noqa: RUF012  # nobody changes it

    @pytest.mark.parametrize(
        "rates", [(8000, 16000), (8000, 24000), (24000, 8000), (48000, 8000), (44100, 8000)]
    )
    def test_it_differs_from_this_machines_own_by_one_step_at_most(
        self, rates: tuple[int, int]
    ) -> None:
        program = f"""
import random
from pipecat_twilio import SincResampler
from pipecat_twilio.audio import resampler, ulaw
assert resampler.vector_path == ulaw.vector_path != "avx2"
pcm = random.Random(1).randbytes(40_000)
print(ulaw.encode(pcm).hex(), SincResampler{rates}.process(pcm).hex())
"""
        encoded, resampled = (bytes.fromhex(w) for w in run(program, **self.ENVIRONMENT).split())
        pcm = random.Random(1).randbytes(40_000)
        assert encoded == ulaw.encode(pcm)
        ours = np.frombuffer(SincResampler(*rates).process(pcm), "<i2").astype(int)
        assert np.abs(ours - np.frombuffer(resampled, "<i2")).max() <= 1
