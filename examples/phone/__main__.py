"""A telephone in the browser: hear your bot as a caller would, without a Twilio account.

    tox -e phone -- ws://localhost:7860/ws       a bot's stream
    tox -e phone -- http://localhost:8765/       a bot's voice webhook
    tox -e phone                                 the echo bot, which is started beside it

Open the address that it prints. For a bot that checks signatures or hangs up, set

    TWILIO_AUTH_TOKEN   signs the requests to the bot; the bot hangs up with it
    TWILIO_ACCOUNT_SID  the account that is called; by default one is made up

and have the bot use the `base_url` that is printed, in place of Twilio's API.
"""

import argparse
import asyncio
import os
import secrets
import socket
from contextlib import AsyncExitStack, suppress

from dialing import ACCOUNT_SID, CalledBot
from serving import serve_in_thread

from phone.server import PhoneServer


def free_port() -> int:
    """Returns a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="phone", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bot", nargs="?", help="the bot's address, as above")
    parser.add_argument("--port", type=int, default=8766, help="to listen on; 8766 by default")
    parser.add_argument("--from", dest="caller", default=CalledBot.caller, help="who calls")
    parser.add_argument("--to", dest="called", default=CalledBot.called, help="the bot's number")
    custom = {"default": [], "metavar": "NAME=VALUE", "help": "in `start`, without a webhook"}
    parser.add_argument("--parameter", action="append", **custom)
    given = parser.parse_args()
    if not all("=" in pair for pair in given.parameter):
        parser.error(f"--parameter must be NAME=VALUE, got {given.parameter}")
    token = os.environ.get("TWILIO_AUTH_TOKEN", "")
    try:
        given.called_bot = CalledBot(
            url=given.bot or f"http://127.0.0.1:{free_port()}/",
            account_sid=os.environ.get("TWILIO_ACCOUNT_SID") or ACCOUNT_SID,
            auth_token=token if given.bot else token or secrets.token_hex(16),
            caller=given.caller,
            called=given.called,
            parameters=dict(pair.split("=", 1) for pair in given.parameter),
        )
    except ValueError as error:
        parser.error(str(error))
    return given


async def main() -> None:
    """Serves the phone until it is stopped."""
    given = arguments()
    bot: CalledBot = given.called_bot
    async with AsyncExitStack() as stack:
        try:
            phone = await stack.enter_async_context(PhoneServer(bot, given.port))
        except OSError as error:
            raise SystemExit(f"cannot listen on port {given.port}: {error}") from None
        if not given.bot:
            from echo_bot import Settings, create_app  # noqa: PLC0415  # loads all of Pipecat

            settings = Settings(
                bot.account_sid, bot.auth_token, public_url=bot.url, base_url=phone.url
            )
            port = int(bot.url.rsplit(":", 1)[1].rstrip("/"))
            stack.enter_context(serve_in_thread(create_app(settings), port))
        print(f"The phone is at {phone.url}/ and calls {bot.url}")
        print(f"For the bot's hang-up: base_url={phone.url!r}, account_sid={bot.account_sid!r}")
        print("Ctrl+C switches it off.", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
