"""Standing in for Pipecat's serializer where the development runner looks for it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pipecat.serializers.twilio as pipecat_module
import pytest

from pipecat_twilio import TwilioFrameSerializer, install, uninstall

PIPECATS = pipecat_module.TwilioFrameSerializer


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    pipecat_module.TwilioFrameSerializer = PIPECATS


def test_install_puts_ours_in_place_and_says_so_once(log: list[str]) -> None:
    install()
    install()
    assert pipecat_module.TwilioFrameSerializer is TwilioFrameSerializer
    assert [line.split()[0] for line in log] == ["INFO"]


def test_uninstall_puts_pipecats_back_and_says_so_once(log: list[str]) -> None:
    install()
    uninstall()
    uninstall()
    assert pipecat_module.TwilioFrameSerializer is PIPECATS
    assert [line.split()[0] for line in log] == ["INFO", "INFO"]


@pytest.mark.parametrize(
    "imports",
    [
        "import pipecat.runner.utils; from pipecat_twilio import install",
        "from pipecat_twilio import install; import pipecat.runner.utils",
    ],
)
def test_whichever_module_was_imported_first_the_runner_builds_ours(imports: str) -> None:
    program = f"""
import asyncio
{imports}
install()
import pipecat.runner.utils as utils
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
params = FastAPIWebsocketParams()
class Socket:
    headers = {{}}
call = {{"stream_id": "MZ1", "call_id": "CA1"}}
asyncio.run(utils._create_telephony_transport(Socket(), params, "twilio", call))
import pipecat_twilio
assert type(params.serializer) is pipecat_twilio.TwilioFrameSerializer, params.serializer
"""
    environment = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "token"}
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | environment)


def test_a_pipecat_it_does_not_know_is_refused_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FromTheFuture:
        def __init__(self, stream_sid: str, *, codec: str = "opus") -> None: ...

    monkeypatch.setattr(pipecat_module, "TwilioFrameSerializer", FromTheFuture)
    with pytest.raises(RuntimeError, match=r"pipecat-ai .*FromTheFuture.* does not know"):
        install()
    assert pipecat_module.TwilioFrameSerializer is FromTheFuture
