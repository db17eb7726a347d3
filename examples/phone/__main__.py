"""A telephone in the browser: hear your bot as a caller would, without a Twilio account.

    python examples/phone ws://localhost:8765/ws     a bot's stream
    python examples/phone http://localhost:8765/     a bot's voice webhook
    python examples/phone                            the echo bot, which is started beside it

Open the address that it prints. For a bot that checks signatures or hangs up, set

    TWILIO_AUTH_TOKEN   signs the requests to the bot; the bot hangs up with it
    TWILIO_ACCOUNT_SID  the account that is called; by default one is made up

and have the bot use the `base_url` that is printed, in place of Twilio's API.
"""

import argparse
import asyncio
import os
import secrets
import signal
from contextlib import AsyncExitStack, suppress

import example_bot
from dialing import Bot
from page_server import PhoneServer
from wire import new_sid


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python examples/phone",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("bot", nargs="?", help="the bot's address, as above")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on; 127.0.0.1 by default")
    parser.add_argument("--port", type=int, default=8766, help="to listen on; 8766 by default")
    parser.add_argument("--from", dest="caller", default=Bot.caller, help="the caller's number")
    parser.add_argument("--to", dest="called", default=Bot.called, help="the bot's number")
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a custom parameter in `start`; from a webhook they come with its TwiML",
    )
    given = parser.parse_args()
    if not all("=" in pair for pair in given.parameter):
        parser.error(f"--parameter must be NAME=VALUE, got {given.parameter}")
    given.bot_port = example_bot.free_port()
    token = os.environ.get("TWILIO_AUTH_TOKEN", "")
    try:
        given.called_bot = Bot(
            url=given.bot or f"http://127.0.0.1:{given.bot_port}/",
            account_sid=os.environ.get("TWILIO_ACCOUNT_SID") or new_sid("AC"),
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
    bot = given.called_bot
    async with AsyncExitStack() as stack:
        try:
            phone = await stack.enter_async_context(PhoneServer(bot, given.host, given.port))
        except OSError as error:
            raise SystemExit(f"cannot listen on {given.host}:{given.port}: {error}") from None
        if not given.bot:
            print("The echo bot is starting ...", flush=True)
            await stack.enter_async_context(example_bot.running(bot, given.bot_port, phone.url))
        print(f"The phone is at {phone.url}/ and calls {bot.url}")
        print(f"For the bot's hang-up: base_url={phone.url!r}, account_sid={bot.account_sid!r}")
        print("Ctrl+C switches it off.", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the bot must be ended, too
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
