"""The wire: Twilio Media Streams messages, parsed and built. No I/O, no Pipecat.

Incoming messages are typed by their `event`. Only what a bot can use is taken from them; unknown
keys are skipped, since Twilio may add some. Outgoing messages have exactly the documented keys:
Twilio warns of any other.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

import json
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from pipecat_twilio import base64

MAX_MESSAGE_BYTES = 1 << 20
"""Longer messages are by default not read: 20 ms of audio take about 400 bytes."""

MAX_BUFFERED_MINUTES = 10
"""Twilio discards audio beyond this. Source: https://www.twilio.com/docs/api/errors/31931"""


class MessageError(ValueError):
    """A message that cannot be read; the text names the fault, never the audio."""

    def __str__(self) -> str:
        # An unknown event is quoted in msgspec's text: cut it, and let no control character out.
        # That takes time, and of a flood few are shown: so not until then.
        return ascii(super().__str__()[:100])


class _Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An object inside a message."""


class _Message(_Part, frozen=True, gc=False, rename="camel", tag_field="event"):
    """A message, told from the others by its `event`."""


class Connected(_Message, frozen=True, gc=False, tag="connected"):
    """The first message on the socket."""

    protocol: str = ""
    version: str = ""


class MediaFormat(_Part, frozen=True, gc=False):
    """How the audio of a stream is encoded: always mu-law, 8000 Hz, one channel."""

    encoding: str = ""
    sample_rate: int = 0
    channels: int = 0


class StreamStart(_Part, frozen=True, gc=False):
    """What a stream belongs to.

    `custom_parameters` are the `<Parameter>`s of the TwiML that opened the stream.
    """

    stream_sid: str
    call_sid: str
    account_sid: str
    tracks: tuple[str, ...] = ()
    custom_parameters: dict[str, str] = {}
    media_format: MediaFormat = MediaFormat()


class Start(_Message, frozen=True, gc=False, tag="start"):
    """The second message: audio follows."""

    stream_sid: str
    start: StreamStart


Track = Literal["inbound", "outbound"]


class MediaPart(_Part, frozen=True, gc=False):
    """A piece of audio: `payload` is mu-law, `timestamp` milliseconds since the stream began.

    `timestamp` is None where there is none that can be read, which is no reason to drop audio.
    """

    payload: bytes
    track: Track = "inbound"
    timestamp: float | None = None


class Media(_Message, frozen=True, gc=False, tag="media"):
    """Audio from the call."""

    media: MediaPart


class _UntimedPart(_Part, frozen=True, gc=False):
    payload: bytes
    track: Track = "inbound"


class _UntimedMedia(_Message, frozen=True, gc=False, tag="media"):
    media: _UntimedPart


class DtmfPart(_Part, frozen=True, gc=False):
    """A key: one of 0-9, *, #, A-D."""

    digit: str


class Dtmf(_Message, frozen=True, gc=False, tag="dtmf"):
    """A key was pressed."""

    dtmf: DtmfPart


class MarkPart(_Part, frozen=True, gc=False):
    """The name that the bot gave its mark."""

    name: str


class Mark(_Message, frozen=True, gc=False, tag="mark"):
    """All audio before a mark of the bot's has been played, or was cleared."""

    mark: MarkPart
    stream_sid: str = ""


class Stop(_Message, frozen=True, gc=False, tag="stop"):
    """The stream has ended."""


Message = Connected | Start | Media | Dtmf | Mark | Stop

# Not strict: Twilio writes its numbers as strings.
read: Callable[[str | bytes], Message] = msgspec.json.Decoder(Message, strict=False).decode
"""`parse` at its quickest: of any length, and what it raises is one of `UNREADABLE`."""

_read_untimed = msgspec.json.Decoder(_UntimedMedia).decode

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError)
"""What `read` raises if it is no message."""


def parse(data: str | bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """Reads one message from Twilio.

    Args:
        data: A WebSocket message's text, as str or as UTF-8.
        max_bytes: A longer one is not looked at; the characters of a str count.

    Returns:
        The message. Its audio is decoded from base64, but still mu-law.

    Raises:
        MessageError: `data` is longer than `max_bytes`, not JSON, not a documented
            message, or its payload is not base64; whatever `data` is, nothing else is raised.
    """
    try:
        if len(data) > max_bytes:
            raise MessageError(f"{len(data)} long, more than {max_bytes}")
        return read(data)
    except UNREADABLE as error:
        return read_untimed(data, error)


def read_untimed(data: str | bytes, error: Exception) -> Media:
    """Reads audio whose timestamp, by the `error` it led to, is all that is wrong with it.

    Raises:
        MessageError: More is wrong with it.
    """
    if not str(error).endswith("`$.media.timestamp`"):
        raise MessageError(str(error)) from None
    try:
        media = _read_untimed(data).media
    except UNREADABLE as another:
        raise MessageError(str(another)) from None
    return Media(MediaPart(media.payload, media.track))


class OutboundMessages:
    """Builds the messages of one stream; what never changes in a call is prepared once.

    Args:
        stream_sid: The stream they are for.
    """

    def __init__(self, stream_sid: str) -> None:
        self.clear = json.dumps({"event": "clear", "streamSid": stream_sid})
        """Empties Twilio's buffer of audio to be played."""
        media = json.dumps({"event": "media", "streamSid": stream_sid, "media": {"payload": ""}})
        end = '"}}'
        self.media = base64.Template(media.removesuffix(end), end).fill
        """Returns the message that plays the mu-law it is given, after what was sent before."""


def mark(stream_sid: str, name: str) -> dict[str, Any]:
    """Returns the message that has Twilio send `name` back when the audio before it was played.

    It is a dict, as Pipecat's transport message frames carry it.
    """
    return {"event": "mark", "streamSid": stream_sid, "mark": {"name": name}}
