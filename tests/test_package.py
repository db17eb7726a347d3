"""The package from outside: what an import loads, and the vector paths of the compiled modules."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipecat_twilio
from pipecat_twilio import SincResampler, resampler, ulaw

TESTS = Path(__file__).parent


def run(program: str, **environment: str) -> str:
    """Returns what a program prints that runs in a Python of its own."""
    command = [sys.executable, "-c", program]
    env = os.environ | environment
    return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout


def loaded_by(statement: str) -> set[str]:
    """Returns the top-level modules that are there after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    return {name.split(".")[0] for name in json.loads(run(program))}


@pytest.mark.parametrize(
    "statement",
    [
        "import pipecat_twilio.ulaw",
        "import pipecat_twilio.resampler",
        "from pipecat_twilio import SincResampler, is_valid_signature",
    ],
)
def test_the_codec_can_be_had_without_pipecat_or_aiohttp(statement: str) -> None:
    assert not {"pipecat", "aiohttp", "msgspec", "loguru"} & loaded_by(statement)


def test_mu_law_alone_does_not_load_numpy() -> None:
    assert "numpy" not in loaded_by("import pipecat_twilio.ulaw")


def test_the_public_names_are_there_and_no_others() -> None:
    for name in pipecat_twilio.__all__:
        assert getattr(pipecat_twilio, name).__name__ == name
    assert set(pipecat_twilio.__all__) <= set(dir(pipecat_twilio))
    with pytest.raises(AttributeError, match="no attribute 'Serializer'"):
        _ = pipecat_twilio.Serializer


class TestTheBaselinePath:
    """What a machine without AVX2 runs: the switch is read when a module loads."""

    ENVIRONMENT = {"PIPECAT_TWILIO_VECTORS": "baseline"}  # noqa: RUF012  # nobody changes it

    def test_it_passes_all_tests_of_the_codec_and_the_resampler(self) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(TESTS / f"test_{module}.py" for module in ("ulaw", "resampler", "base64")),
            ],
            check=False,
            cwd=TESTS.parent,
            env=os.environ | self.ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize(
        "rates", [(8000, 16000), (8000, 24000), (24000, 8000), (48000, 8000), (44100, 8000)]
    )
    def test_it_differs_from_this_machines_own_by_one_step_at_most(
        self, rates: tuple[int, int]
    ) -> None:
        program = f"""
import random
from pipecat_twilio import SincResampler, resampler, ulaw
assert resampler.vector_path == ulaw.vector_path != "avx2"
pcm = random.Random(1).randbytes(40_000)
print(ulaw.encode(pcm).hex(), SincResampler{rates}.process(pcm).hex())
"""
        encoded, resampled = (bytes.fromhex(w) for w in run(program, **self.ENVIRONMENT).split())
        pcm = random.Random(1).randbytes(40_000)
        assert encoded == ulaw.encode(pcm)
        ours = np.frombuffer(SincResampler(*rates).process(pcm), "<i2").astype(int)
        assert np.abs(ours - np.frombuffer(resampled, "<i2")).max() <= 1


def test_both_modules_took_the_same_path() -> None:
    assert ulaw.vector_path == resampler.vector_path
