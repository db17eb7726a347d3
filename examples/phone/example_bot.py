"""The echo bot of these examples, in its own process, so that it and the phone do not block."""

import asyncio
import multiprocessing
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dialing import Bot

START_SECS = 60  # limit of its start; it loads all of Pipecat


def free_port() -> int:
    """Returns a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve_bot(port: int, account_sid: str, auth_token: str, base_url: str) -> None:
    """Serves the bot on loopback; it answers only what is signed with the token."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    # The phone itself needs no Pipecat.
    from echo_bot import Settings, serve  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    logger.add(sys.stderr, level="INFO")
    settings = Settings(
        account_sid=account_sid,
        auth_token=auth_token,
        base_url=base_url,
        public_url=f"http://127.0.0.1:{port}",
    )
    serve(settings, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)


@asynccontextmanager
async def running(bot: Bot, port: int, base_url: str) -> AsyncIterator[None]:
    """Runs the bot on `port`; enters the `with` block when it answers."""
    process = multiprocessing.get_context("spawn").Process(
        target=serve_bot, args=(port, bot.account_sid, bot.auth_token, base_url), daemon=True
    )
    process.start()
    try:
        async with asyncio.timeout(START_SECS):
            while process.is_alive():
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    break
        yield
    finally:
        process.terminate()
        process.join()
