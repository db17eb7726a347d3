"""What docs/reference.md says of installing, done in empty environments.

Docker is not needed: the commands of the Dockerfile run here, on a clone of this tree.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference.md").read_text().split("\n## ")[1]
REPOSITORY = "https://github.com/OWNER/pipecat-twilio"
NO_FASTAPI = 'TwilioTransport needs FastAPI: pip install "pipecat-ai[websocket]"'


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", PAGE, re.DOTALL | re.MULTILINE)


def test_without_fastapi_the_error_names_what_to_install(monkeypatch) -> None:
    import pipecat.transports.websocket.fastapi  # noqa: F401  # so that there is one to take away

    import pipecat_twilio

    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delattr("pipecat.transports.websocket.fastapi")
    monkeypatch.delitem(sys.modules, "pipecat.transports.websocket.fastapi")
    monkeypatch.delitem(sys.modules, "pipecat_twilio.transport", raising=False)
    assert f"ImportError: {NO_FASTAPI}" in blocks("text")
    for use in (lambda: pipecat_twilio.TwilioTransport, pipecat_twilio.install):
        with pytest.raises(ImportError, match=re.escape(NO_FASTAPI)):
            use()
    pipecat_twilio.install(transport=False)
    pipecat_twilio.uninstall()


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A repository with this tree as it is, committed or not."""
    clone = tmp_path_factory.mktemp("repository") / "pipecat-twilio"
    built = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.c", "calls")
    shutil.copytree(ROOT, clone, ignore=built)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(clone)]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "This tree"]):
        subprocess.run([*git, *command], check=True)
    return clone


def run(command: str, folder: Path, *, fails: bool = False, **environment: str) -> str:
    """Runs a command in a project's folder; returns what it prints."""
    from uv import find_uv_bin

    words = shlex.split(command)
    if words[0] == "uv":
        words[0] = find_uv_bin()
    own = {"UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(folder / ".venv")}
    done = subprocess.run(
        words,
        check=False,
        cwd=folder,
        env=os.environ | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert bool(done.returncode) is fails, done.stdout
    return done.stdout


@pytest.mark.skipif(
    (sys.platform, *sys.version_info[:2]) != ("linux", 3, 13), reason="slow, so only there"
)
@pytest.mark.timeout(600)
class TestInEmptyEnvironments:
    def test_the_dockerfile_builds_a_wheel_that_a_bot_can_use(self, clone, tmp_path) -> None:
        (dockerfile,) = blocks("dockerfile")
        here = re.sub(r"(?<= )/(src|wheels)", rf"{tmp_path}/\1", dockerfile)
        commands = re.findall(r"^RUN (?!apt-get)(.*)$", here, re.MULTILINE)
        *build, install_all = [text.replace(REPOSITORY, f"file://{clone}") for text in commands]
        run(f"uv venv --quiet --python {sys.executable}", tmp_path)
        for command in build:
            run(command, tmp_path)
        (wheel,) = (tmp_path / "wheels").glob("*.whl")
        run(f"uv pip install {wheel}", tmp_path)  # and what the package itself needs
        python = f"{tmp_path}/.venv/bin/python -P -c"
        for use in ("install; install()", "TwilioTransport"):
            said = run(f"{python} 'from pipecat_twilio import {use}'", tmp_path, fails=True)
            assert NO_FASTAPI in said
        run(install_all.replace("*.whl", wheel.name), tmp_path)
        bot = "import pipecat.runner.run, pipecat_twilio; pipecat_twilio.install()"
        assert "is now pipecat_twilio's" in run(f"{python} '{bot}'", tmp_path)

    def test_without_a_compiler_the_build_says_what_the_page_quotes(self, clone, tmp_path) -> None:
        quoted = next(text for text in blocks("text") if "gcc" in text)
        no_gcc = {"CC": "gcc", "PATH": str(tmp_path), "UV_PYTHON": sys.executable}
        assert quoted in run(f"uv build --wheel {clone}", tmp_path, fails=True, **no_gcc)
