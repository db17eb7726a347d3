"""How Twilio reaches a bot: the voice webhook, its TwiML, and the signature."""

import hmac
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha1
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree as ET

import aiohttp
from yarl import URL

ACCOUNT_SID = "AC" + "0" * 32
ANSWER_SECS = 5.0  # limit of a connection's or a webhook's answer; Twilio itself waits for 15


class CallError(Exception):
    """The bot cannot be called; the text is one sentence that says why."""


@dataclass(frozen=True)
class CalledBot:
    """Where a bot is, and what Twilio would tell it."""

    url: str  # of its stream, ws or wss, or its voice webhook, http or https
    account_sid: str = ACCOUNT_SID
    auth_token: str = field(default="", repr=False)  # signs the requests, unless it is empty
    caller: str = "+15005550006"
    called: str = "+15005550001"
    parameters: dict[str, str] = field(default_factory=dict)  # in `start`, without a webhook

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise ValueError(
                f"the bot's address must be ws(s)://... or http(s)://..., got {self.url}"
            )

    def signature(self, url: str, params: dict[str, str] | None = None) -> dict[str, str]:
        """Returns the headers that show a request to be Twilio's.

        Source: https://www.twilio.com/docs/usage/security#validating-requests
        """
        if not self.auth_token:
            return {}
        text = url + "".join(name + value for name, value in sorted((params or {}).items()))
        digest = hmac.new(self.auth_token.encode(), text.encode(), sha1).digest()
        return {"X-Twilio-Signature": b64encode(digest).decode()}


async def find_stream(bot: CalledBot, call_sid: str) -> tuple[str, dict[str, str]]:
    """Asks the bot's webhook, if that is its address, where to stream the call to.

    Returns:
        The URL of the stream, and its custom parameters.

    Raises:
        CallError: The webhook cannot be reached, or its answer opens no stream.
    """
    if bot.url.startswith("ws"):
        return bot.url, bot.parameters
    form = {"AccountSid": bot.account_sid, "CallSid": call_sid, "ApiVersion": "2010-04-01"}
    form |= {"CallStatus": "ringing", "Direction": "inbound"}
    form |= {"From": bot.caller, "To": bot.called}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECS)) as session,
            session.post(
                URL(bot.url, encoded=True), data=form, headers=bot.signature(bot.url, form)
            ) as response,
        ):
            twiml = await response.text(errors="replace")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CallError(explain("webhook", bot.url, error)) from None
    if not 200 <= response.status < 300:
        raise CallError(
            f"The bot's webhook answered with status {response.status} (Twilio error 11200)."
        )
    return read_twiml(twiml, bot.url)


def read_twiml(twiml: str, base_url: str) -> tuple[str, dict[str, str]]:
    """Finds the stream that TwiML opens, and its parameters; other verbs are passed over.

    Args:
        twiml: The answer of a voice webhook.
        base_url: What a relative address of a stream is relative to.

    Raises:
        CallError: It is not XML, or has no bidirectional stream.
    """
    try:
        if "<!DOCTYPE" in twiml:  # entities, which can grow without limit, are only possible there
            raise CallError("The bot's webhook answered with a document type, not TwiML.")
        root = ET.fromstring(twiml.strip())  # noqa: S314  # no entities
        stream = root.find("Connect/Stream") if root.tag == "Response" else None
        if stream is None or not (url := stream.get("url", "").strip()):
            raise CallError("The bot's TwiML has no <Connect><Stream url=...>.")
        url = urljoin(base_url.replace("http", "ws", 1), url)
        query = urlsplit(url).query
    except ET.ParseError as error:
        text = f"The bot's webhook did not answer with XML (Twilio error 12100): {error}."
        raise CallError(text) from None
    except ValueError:
        raise CallError(f"The stream's address in the bot's TwiML is not valid: {url}.") from None
    if not url.startswith(("ws://", "wss://")):
        raise CallError(f"The stream's address in the bot's TwiML is not wss://: {url}.")
    if query:
        raise CallError(
            "The stream's address in the bot's TwiML has a query string, which Twilio does not "
            "support (Twilio error 31920): use <Parameter>."
        )
    return url, {p.get("name", ""): p.get("value", "") for p in stream.iterfind("Parameter")}


def explain(what: str, url: str, error: Exception) -> str:
    """Returns a sentence that says why the bot's webhook or stream cannot be reached."""
    match error:
        case TimeoutError():
            fault = f"does not answer: its {what} at {url} sent nothing for {ANSWER_SECS:.0f} s"
        case ConnectionRefusedError() | aiohttp.ClientConnectorError():
            fault = f"is not there: nothing listens at {url}"
        case aiohttp.WSServerHandshakeError():
            status = f"status {error.status}, not with a WebSocket (Twilio error 31920)"
            fault = f"refused the call: its {what} answered with {status}"
        case OSError() | aiohttp.ServerDisconnectedError():
            fault = f"closed the connection at once: its {what} at {url} gave no answer"
        case ValueError():
            fault = f"cannot be called: the address of its {what} is not valid: {url}"
        case _:
            fault = f"is something else: what listens at {url} does not speak HTTP"
    return f"The bot {fault}."
