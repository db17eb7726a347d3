"""The wire: Twilio Media Streams messages, parsed and built. No I/O, no Pipecat.

Incoming messages are typed by their `event` and have only the fields that a bot can use. Unknown
keys are skipped: Twilio may add some. A field that is not needed has a default, which also replaces
a value of another type. Outgoing messages have exactly the documented keys: Twilio warns of others.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

import json
import re
from binascii import b2a_base64
from collections.abc import Callable
from functools import reduce
from json.encoder import encode_basestring_ascii
from operator import getitem
from typing import Annotated, Any

import msgspec

MAX_MESSAGE_BYTES = 1 << 20  # 20 ms of audio have about 400 bytes


class MessageError(ValueError):
    """A message that cannot be read; the text names the fault and never quotes the audio."""


class _Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An object inside a message."""


class _Message(_Part, frozen=True, gc=False, rename="camel", tag_field="event"):
    """A message; its `event` says of which type it is."""


class Connected(_Message, frozen=True, gc=False, tag="connected"):
    """The first message on the socket."""


class StreamStart(_Part, frozen=True, gc=False):
    """The call of the stream, whose audio always is mu-law, 8000 Hz, one channel.

    `custom_parameters` are the `<Parameter>`s of the TwiML that opened the stream. A value that
    is not a string, which Twilio never sends, is its JSON text: `5` is `"5"`, and null is empty.
    """

    stream_sid: str = ""
    call_sid: str = ""
    account_sid: str = ""
    tracks: tuple[str, ...] = ()
    custom_parameters: dict[str, str] = {}


class Start(_Message, frozen=True, gc=False, tag="start"):
    """The second message: audio follows. Its `stream_sid` may also be given in `start` only."""

    stream_sid: str = ""
    start: StreamStart = StreamStart()

    def __post_init__(self) -> None:
        if not (stream_sid := self.stream_sid or self.start.stream_sid):
            raise ValueError("`start` has no streamSid")
        msgspec.structs.force_setattr(self, "stream_sid", stream_sid)


BOT_TRACKS = ("outbound", "outbound_track")  # of the bot's own audio

_FiniteFloat = Annotated[float, msgspec.Meta(gt=-1e300, lt=1e300)]


class MediaPart(_Part, frozen=True, gc=False):
    """A piece of mu-law audio, the caller's unless `track` is the bot's own.

    `timestamp` is in milliseconds since the stream began. Both are None if they cannot be read.
    """

    payload: bytes
    track: str | None = None
    timestamp: _FiniteFloat | None = None


class Media(_Message, frozen=True, gc=False, tag="media"):
    """Audio from the call."""

    media: MediaPart


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
    """All audio before one of the bot's marks has been played, or was cleared."""

    mark: MarkPart
    stream_sid: str = ""


class Stop(_Message, frozen=True, gc=False, tag="stop"):
    """The stream has ended."""


Message = Connected | Start | Media | Dtmf | Mark | Stop

# Not strict: Twilio writes its numbers as strings.
_decode: Callable[[str | bytes], Message] = msgspec.json.Decoder(Message, strict=False).decode
# Python's floats, since a number that is out of range may be one that nothing needs.
_decode_any: Callable[[str | bytes], Any] = msgspec.json.Decoder(float_hook=float).decode
# Where a ValidationError says that the fault is: `streamSid` and `start.tracks`, for example.
_FAULT = re.compile(r" - at `\$\.([\w.]+)")


def parse(data: str | bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """Reads one message from Twilio.

    Args:
        data: A WebSocket message, as str or as UTF-8 in any bytes-like object.
        max_bytes: A longer message, in bytes of UTF-8, is not parsed.

    Returns:
        The message. Its audio is decoded from base64, but still mu-law.

    Raises:
        MessageError: `data` is too long, not JSON, not a documented message, or lacks something
            that a bot needs. Nothing else is raised, whatever `data` is.
    """
    try:
        if (size := _utf8_bytes(data, max_bytes)) > max_bytes:
            raise MessageError(f"{size} bytes, more than {max_bytes}")
        try:
            return _decode(data)
        except msgspec.ValidationError:
            return _without_faults(_decode_any(data))
    except MessageError:
        raise
    except Exception as error:  # noqa: BLE001  # `data` may be anything, with methods of its own
        raise MessageError(ascii(str(error)[:100])[1:-1]) from None  # it may quote an event


def _without_faults(message: Any) -> Message:
    """Reads a message without the fields of another type than their own; raises if it needs one."""
    while True:
        try:
            read: Message = msgspec.convert(message, Message, strict=False)
            return read
        except msgspec.ValidationError as error:
            if not (fault := _FAULT.search(str(error))):
                raise
            *path, name = fault[1].split(".")
            part = reduce(getitem, path, message)
            if name == "customParameters" and isinstance(part[name], dict):
                part[name] = {key: _as_text(value) for key, value in part[name].items()}
            else:
                del part[name]


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _utf8_bytes(data: str | bytes, limit: int) -> int:
    """Returns the size of `data` in bytes; if that is above `limit`, some number above it."""
    if not isinstance(data, str):
        return memoryview(data).nbytes
    if not (data.isascii() or len(data) > limit):
        data = data.encode(errors="surrogatepass")
    return len(data)


def media(stream_sid: str, ulaw: bytes) -> str:
    """Returns the message that plays `ulaw` after all audio that was sent before."""
    # The payload needs no escapes, and json.dumps would take five times as long.
    payload = b2a_base64(ulaw, newline=False).decode()
    return (
        f'{{"event": "media", "streamSid": {encode_basestring_ascii(stream_sid)}, '
        f'"media": {{"payload": "{payload}"}}}}'
    )


def clear(stream_sid: str) -> str:
    """Returns the message at which Twilio empties its buffer and sends all pending marks back."""
    return json.dumps({"event": "clear", "streamSid": stream_sid})


def mark(stream_sid: str, name: str) -> dict[str, Any]:
    """Returns the message that makes Twilio send `name` back when the audio before it was played.

    It is a dict, which is what Pipecat's transport message frames take.
    """
    return {"event": "mark", "streamSid": stream_sid, "mark": {"name": name}}


def is_clear(message: Any) -> bool:
    """Whether a message empties Twilio's buffer."""
    return isinstance(message, dict) and message.get("event") == "clear"


def mark_name(message: Any) -> str | None:
    """Returns the name of the mark that a message sets; None for any other message."""
    match message:
        case {"event": "mark", "mark": {"name": str(name)}}:
            return name
    return None
