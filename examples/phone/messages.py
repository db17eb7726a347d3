"""The messages of one stream, from Twilio's side: those it sends, and those it takes. No I/O.

`pipecat_twilio.messages` is the bot's side of the same wire.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pybase64 import b64encode_as_string

RATE = 8000  # Hz; a byte of mu-law is a sample
STEP_MS = 20
STEP_BYTES = RATE * STEP_MS // 1000
SILENCE = b"\xff"  # the mu-law code of 0

# https://www.twilio.com/docs/api/errors/ has a page for each.
MEDIA_DISCARDED = 31931  # more than 10 minutes are buffered
MALFORMED_MESSAGE = 31950  # a binary message
INVALID_MESSAGE = 31951  # no JSON, an unknown event or key, a missing key, another streamSid


def new_sid(prefix: str) -> str:
    """Returns an identifier as Twilio makes them; `prefix` says of what."""
    return prefix + secrets.token_hex(16)


@dataclass
class TwilioStream:
    """Builds the messages of one stream, and numbers them.

    Args:
        account_sid: The account that is called.
        custom_parameters: The `<Parameter>`s of the TwiML that opens the stream.
    """

    account_sid: str
    custom_parameters: dict[str, str] = field(default_factory=dict)
    call_sid: str = field(default_factory=lambda: new_sid("CA"))
    stream_sid: str = field(default_factory=lambda: new_sid("MZ"))
    _messages: int = 0
    _chunks: int = 0

    def connected(self) -> str:
        """Returns the first message on the socket."""
        return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self) -> str:
        """Returns the second message: audio follows."""
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1}
        return self._numbered(
            "start",
            accountSid=self.account_sid,
            streamSid=self.stream_sid,
            callSid=self.call_sid,
            tracks=["inbound"],
            mediaFormat=media_format,
            customParameters=self.custom_parameters,
        )

    def media(self, ulaw: bytes) -> str:
        """Returns the message with the caller's next 20 ms."""
        self._chunks += 1
        return self._numbered(
            "media",
            track="inbound",
            chunk=str(self._chunks),
            timestamp=str((self._chunks - 1) * STEP_MS),
            payload=b64encode_as_string(ulaw),
        )

    def dtmf(self, digit: str) -> str:
        """Returns the message that a key was pressed."""
        return self._numbered("dtmf", track="inbound_track", digit=digit)

    def mark(self, name: str) -> str:
        """Returns a mark of the bot's: the audio before it has been played, or was cleared."""
        return self._numbered("mark", name=name)

    def stop(self) -> str:
        """Returns the last message."""
        return self._numbered("stop", accountSid=self.account_sid, callSid=self.call_sid)

    def _numbered(self, event: str, **body: Any) -> str:
        self._messages += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._messages),
            "streamSid": self.stream_sid,
            event: body,
        }
        return json.dumps(message)


class RefusedMessageError(ValueError):
    """A message that Twilio would not accept; `code` is the number of its warning."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object with exactly the documented keys."""


class _FromBot(_Strict, frozen=True, tag_field="event"):
    stream_sid: str = msgspec.field(name="streamSid")


class _Audio(_Strict, frozen=True):
    payload: bytes


class _Name(_Strict, frozen=True):
    name: str


class Media(_FromBot, frozen=True, tag="media"):
    """Audio to play after all that was sent before; `payload` is mu-law."""

    media: _Audio


class Mark(_FromBot, frozen=True, tag="mark"):
    """A name to send back when all audio before it has been played."""

    mark: _Name


class Clear(_FromBot, frozen=True, tag="clear"):
    """An interruption: what is buffered is not to be played."""


_decode = msgspec.json.Decoder(Media | Mark | Clear).decode


def read(data: str | bytes, stream_sid: str) -> Media | Mark | Clear:
    """Reads a message from the bot as strictly as Twilio does.

    Args:
        data: A WebSocket message.
        stream_sid: The stream that it came on.

    Raises:
        RefusedMessageError: Twilio would warn of the message, and not act on it.
    """
    if isinstance(data, bytes):
        raise RefusedMessageError(MALFORMED_MESSAGE, "a binary message; Twilio takes text only")
    try:
        message = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # Which number audio that is no base64 draws is not documented; this one is for what does
        # not comply with the protocol.
        raise RefusedMessageError(INVALID_MESSAGE, str(error)[:200]) from None
    if message.stream_sid != stream_sid:
        text = f"the streamSid is {message.stream_sid[:99]!a}, not this stream's {stream_sid}"
        raise RefusedMessageError(INVALID_MESSAGE, text)
    return message
