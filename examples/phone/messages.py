"""Reads a bot's messages as strictly as Twilio does.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

import msgspec

# https://www.twilio.com/docs/api/errors/ has a page for each.
MEDIA_DISCARDED = 31931  # more than 10 minutes are buffered
MALFORMED_MESSAGE = 31950  # a binary message
INVALID_MESSAGE = 31951  # not JSON, an unknown event or key, a missing key, another streamSid


class RefusedMessageError(ValueError):
    """A message that Twilio would not accept; `code` is the number of its warning."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object with exactly the documented keys."""


class _FromBot(_Strict, tag_field="event"):
    stream_sid: str = msgspec.field(name="streamSid")


_Audio = msgspec.defstruct("_Audio", [("payload", bytes)], bases=(_Strict,))
_Name = msgspec.defstruct("_Name", [("name", str)], bases=(_Strict,))


class Media(_FromBot, tag="media"):
    """Audio to play after all that was sent before; `payload` is mu-law."""

    media: _Audio


class Mark(_FromBot, tag="mark"):
    """A name to send back when all audio before it has been played."""

    mark: _Name


class Clear(_FromBot, tag="clear"):
    """An interruption: what is buffered is not to be played."""


_decode = msgspec.json.Decoder(Media | Mark | Clear).decode


def read(data: str | bytes, stream_sid: str) -> Media | Mark | Clear:
    """Reads a WebSocket message from the bot.

    Raises:
        RefusedMessageError: Twilio would warn of the message, and not act on it.
    """
    if isinstance(data, bytes):
        raise RefusedMessageError(MALFORMED_MESSAGE, "a binary message; Twilio takes text only")
    try:
        message = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # Twilio does not document its warning for audio that is not base64.
        raise RefusedMessageError(INVALID_MESSAGE, str(error)[:200]) from None
    if message.stream_sid != stream_sid:
        text = f"the streamSid is {message.stream_sid[:99]!a}, not this stream's {stream_sid}"
        raise RefusedMessageError(INVALID_MESSAGE, text)
    return message
