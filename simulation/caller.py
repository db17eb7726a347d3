"""The simulated caller: dials a bot the way Twilio does, and records what went over the wire."""

import functools
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import websockets
from dialing import CalledBot, CallError, explain, find_stream
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Scenario
from streamdouble.session import Session, SessionConfig, SessionResult

MAX_LATENESS_MS, TRIES = 15, 3  # of the caller: above this the machine was too busy

# Twilio does not offer to compress its messages; streamdouble has no option for it.
websockets.connect = functools.partial(websockets.connect, compression=None)  # type: ignore[misc]


@dataclass
class WireLog:
    """All messages of a call with their times; streamdouble takes it for one of its traces."""

    sent: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def note_out(self, message: dict[str, Any], at: float) -> None:
        """Records a message to the bot."""
        self.sent.append((at, message))

    def note_in(self, message: str, at: float, parsed: dict[str, Any] | None = None) -> None:
        """Records a message from the bot."""
        self.received.append((at, parsed or json.loads(message)))

    def lateness_ms(self) -> float:
        """How late the caller was at worst: the longest time between messages, less 20 ms."""
        times = [at for at, message in self.sent if message["event"] == "media"]
        return 1000 * max(b - a for a, b in itertools.pairwise(times)) - 20


async def place_call(
    url: str,
    scenario: Scenario,
    identity: StreamIdentity | None = None,
    log: WireLog | None = None,
    **parameters: object,
) -> tuple[WireLog, SessionResult]:
    """Calls a bot and runs the script.

    Args:
        url: The bot's voice webhook, http(s), or its stream, ws(s).
        scenario: What the caller does; who waits sends silence, as a telephone does.
        identity: The SIDs of the call; by default of a new one.
        log: Where the messages are recorded, for who wants to see them during the call.
        parameters: What `<Parameter>`s add to `start`, where there is no webhook.

    Raises:
        CallError: Nobody answers there, or there is no Media Streams server.
        ValueError: The address has another scheme.
    """
    bot = CalledBot(url, parameters={name: str(value) for name, value in parameters.items()})
    identity = identity or StreamIdentity(account_sid=bot.account_sid)
    stream_url, custom_parameters = await find_stream(bot, identity.call_sid)
    log = log or WireLog()
    config = SessionConfig(
        trace=log,  # type: ignore[arg-type]
        response_timeout_s=1,
        custom_parameters=custom_parameters,
    )
    session = Session(stream_url, scenario=scenario, config=config, identity=identity)
    try:
        result = await session.run()
    except (OSError, websockets.InvalidHandshake, EOFError) as error:
        raise CallError(explain("stream", stream_url, error)) from None
    return log, result
