"""The command that starts the phone, run in its own process."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from phoning import EXAMPLES, comes_back, page_of, speech

COMMAND = [sys.executable, EXAMPLES / "phone"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


async def test_it_starts_the_echo_bot_and_ends_it() -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--port", "0", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        async with asyncio.timeout(60):
            printed = (await process.stdout.readuntil(b"Ctrl+C")).decode()
        url, bot = re.search(r"The phone is at (\S+)/ and calls (\S+)/", printed).groups()
        assert f"base_url='{url}'" in printed
        async with page_of(SimpleNamespace(url=url)) as page:
            await page.call()
            await page.say(bytes(16_000) + speech() + bytes(10_000))
            await page.order("press", key="#")
            assert (await page.event("ended"))["text"] == "The bot hung up."
            assert comes_back(*await page.recording())
    finally:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        await process.wait()
    host, port = bot.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["localhost:8765"], "the bot's address must be ws(s)://... or http(s)://..."),
        (["ws://"], "the bot's address must be"),
        (["ws://localhost", "--parameter", "name"], "--parameter must be NAME=VALUE"),
        (["ws://localhost", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8766"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], fault: str) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode
    assert fault in done.stderr
