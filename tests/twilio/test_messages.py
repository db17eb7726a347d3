"""The wire format, against the documented examples and Python's own JSON and base64."""

import base64
import json
from typing import Any

import pytest
from streams import ACCOUNT_SID, CALL_SID, STREAM_SID, documented

from pipecat_twilio import messages
from pipecat_twilio.twilio.messages import BOT_TRACKS, MediaPart, MessageError, StreamStart, parse

SECRET = "SECRETAUDIO" * 1000
START, MARK = documented("start"), documented("mark")
STREAM = StreamStart(STREAM_SID, CALL_SID, ACCOUNT_SID, ("inbound",), {"name": "Jane"})


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("connected", messages.Connected()),
        ("start", messages.Start(STREAM_SID, STREAM)),
        ("media", messages.Media(MediaPart(b"\xff\x7f\x00", "inbound", 5))),
        ("dtmf", messages.Dtmf(messages.DtmfPart("1"))),
        ("mark", messages.Mark(messages.MarkPart("my label"), STREAM_SID)),
        ("stop", messages.Stop()),
        (MARK | {"streamSid": None}, messages.Mark(messages.MarkPart("my label"))),
    ],
)
def test_the_documented_messages_are_read(event: Any, expected: messages.Message) -> None:
    message = documented(event) if isinstance(event, str) else event
    reordered = {**{key: message[key] for key in reversed(message)}, "new": [1, {"a": None}]}
    for data in (json.dumps(message), json.dumps(message).encode(), json.dumps(reordered)):
        assert parse(data) == expected


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("timestamp", '"20"', 20),
        ("timestamp", "2.5", 2.5),
        *(
            ("timestamp", text, None)
            for text in ("null", '"soon"', '"nan"', '"1e999"', "1e999", "true", "[]", '{"a": [{}]}')
        ),
        ("timestamp", "1" + "0" * 400, None),
        *(("track", f'"{track}"', track) for track in (*BOT_TRACKS, "inbound", "sideways")),
        *(("track", text, None) for text in ("null", "5", "1e999", "[]", "{}")),
    ],
)
def test_an_odd_timestamp_or_track_is_no_reason_to_drop_audio(field, value, read) -> None:
    media = parse(f'{{"event": "media", "media": {{"payload": "/w==", "{field}": {value}}}}}')
    assert isinstance(media, messages.Media)
    assert media.media.payload == b"\xff"
    assert getattr(media.media, field) == read


def start(**fields: Any) -> messages.Start:
    message = parse(json.dumps({"event": "start", "start": START["start"]} | fields))
    assert isinstance(message, messages.Start)
    return message


class TestStart:
    """It needs a stream SID, and nothing else."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"streamSid": STREAM_SID, "start": {}},
            {"streamSid": STREAM_SID, "start": None},
            {"start": {"streamSid": STREAM_SID}},
            {"streamSid": None, "start": {"streamSid": STREAM_SID, "callSid": 5, "tracks": [None]}},
        ],
    )
    def test_the_stream_sid_may_be_inside_or_outside(self, fields) -> None:
        message = start(**fields)
        assert message.stream_sid == STREAM_SID
        assert (message.start.call_sid, message.start.tracks) == ("", ())

    @pytest.mark.parametrize(
        ("key", "value", "name", "read"),
        [
            ("tracks", None, "tracks", ()),
            ("accountSid", None, "account_sid", ""),
            ("callSid", ["CA1"], "call_sid", ""),
            ("customParameters", "none", "custom_parameters", {}),
            (
                "customParameters",
                {"a": 5, "b": True, "c": None, "d": {"x": [None]}, "e": "null"},
                "custom_parameters",
                {"a": "5", "b": "true", "c": "", "d": '{"x": [null]}', "e": "null"},
            ),
        ],
    )
    def test_an_odd_field_has_its_default_and_all_others_are_read(self, key, value, name, read):
        message = start(start=START["start"] | {key: value})
        for field in STREAM.__struct_fields__:
            expected = read if field == name else getattr(STREAM, field)
            assert getattr(message.start, field) == expected, field


def released() -> memoryview:
    """Returns a view that can no longer be read."""
    view = memoryview(b'{"event": "stop"}')
    view.release()
    return view


@pytest.mark.parametrize(
    "data",
    [
        *(f'{{"event": "start", "start": {part}}}' for part in ("{}", "[]", '{"streamSid": ""}')),
        *("", "{", "null", "7", "[]", '"media"', "{}", "[" * 1_000_000, '"\ud800"'),
        *(f'{{"event": {event}}}' for event in ("1", "null", '"unheard of"', "[]", '"media"')),
        *(
            f'{{"event": "media", "media": {media}}}'
            for media in ("null", "{}", '{"payload": null}', '{"payload": 5}', "[" * 100_000)
        ),
        *(
            f'{{"event": "media", "media": {{"payload": "{payload}"}}}}'
            for payload in ("abc", "a b=", "\\ud800")
        ),
        '{"event": "media", "media": {"payload": "/w=="}} trailing',
        '{"event": "media", "new": ' + "[" * 100_000,
        '{"event": "dtmf", "dtmf": {"digit": 1}}',
        '{"event": "mark", "mark": {}}',
        *(
            f'{{"event": "media", "media": {{"payload": "{SECRET}!", "timestamp": {timestamp}}}}}'
            for timestamp in ("5", "[]")
        ),
        json.dumps({"event": "\x1b[31m\n" + "x" * 10_000}),
        *(b"\xff\xfe\x00", b"", None, 12, ["event"], object(), released()),
        memoryview(b'{"event": "stop"}')[::2],
        type("Broken", (), {"__len__": lambda _: 1 / 0})(),
    ],
)
def test_an_unreadable_message_raises_a_message_error_in_short_without_its_payload(data) -> None:
    with pytest.raises(MessageError) as error:
        parse(data)
    assert 0 < len(str(error.value)) < 200
    assert "SECRET" not in str(error.value)
    assert str(error.value).isascii()
    assert str(error.value).isprintable()


def test_the_limit_counts_utf_8_bytes() -> None:
    text = '{"event": "mark", "mark": {"name": "\u20ac\u20ac\u20ac"}}'
    size = len(text.encode())
    for data in (text, text.encode()):
        assert isinstance(parse(data, max_bytes=size), messages.Mark)
        for limit in (len(text), size - 1):
            with pytest.raises(MessageError, match=f"{size} bytes, more than {limit}"):
                parse(data, max_bytes=limit)
    with pytest.raises(MessageError, match="104 bytes, more than 100"):
        parse(memoryview(bytes(104)).cast("d"), max_bytes=100)


@pytest.mark.parametrize("stream_sid", [STREAM_SID, "", 'quote " and \\ and \u00e9', "MZ}}"])
def test_outbound_messages_have_exactly_the_documented_keys(stream_sid: str) -> None:
    keys = {"streamSid": stream_sid}
    for ulaw in (b"", b"\xff", bytes(range(256))):
        payload = base64.b64encode(ulaw).decode()
        message = {"event": "media", **keys, "media": {"payload": payload}}
        assert json.loads(messages.media(stream_sid, ulaw)) == message
    assert json.loads(messages.clear(stream_sid)) == {"event": "clear", **keys}
    assert messages.mark(stream_sid, "a") == {"event": "mark", **keys, "mark": {"name": "a"}}
