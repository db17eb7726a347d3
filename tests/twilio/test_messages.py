"""The wire format, against the documented examples and Python's own JSON and base64."""

import base64
import binascii
import json
import random

import pytest
from streams import ACCOUNT_SID, CALL_SID, STREAM_SID, documented

from pipecat_twilio import messages


def released() -> memoryview:
    """Returns a view that can no longer be read."""
    view = memoryview(b'{"event": "stop"}')
    view.release()
    return view


START, MEDIA, MARK = documented("start"), documented("media"), documented("mark")


def test_the_documented_messages_are_read() -> None:
    connected, dtmf, stop = (
        messages.parse(json.dumps(documented(event))) for event in ("connected", "dtmf", "stop")
    )
    assert connected == messages.Connected("Call", "1.0.0")
    assert dtmf == messages.Dtmf(messages.DtmfPart("1"))
    assert stop == messages.Stop()
    start = messages.parse(json.dumps(START))
    assert isinstance(start, messages.Start)
    assert start.stream_sid == start.start.stream_sid == STREAM_SID
    assert (start.start.call_sid, start.start.account_sid) == (CALL_SID, ACCOUNT_SID)
    assert start.start.tracks == ("inbound",)
    assert start.start.custom_parameters == {"name": "Jane"}
    assert start.start.media_format == messages.MediaFormat("audio/x-mulaw", 8000, 1)
    media = messages.parse(json.dumps(MEDIA))
    assert isinstance(media, messages.Media)
    assert media.media.payload == b"\xff\x7f\x00"
    assert not media.media.is_from_bot
    assert media.media.timestamp_ms == 5
    mark = messages.parse(json.dumps(MARK))
    assert mark == messages.Mark(messages.MarkPart("my label"), STREAM_SID)


def test_text_bytes_key_order_and_unknown_keys_make_no_difference() -> None:
    expected = messages.parse(json.dumps(MEDIA))
    reordered = {**{key: MEDIA[key] for key in reversed(MEDIA)}, "new": [1, {"a": None}]}
    assert messages.parse(json.dumps(reordered)) == expected
    assert messages.parse(json.dumps(MEDIA).encode()) == expected


def test_numbers_may_be_written_as_strings() -> None:
    media_format = {"encoding": "audio/x-mulaw", "sampleRate": "8000", "channels": "1"}
    start = START | {"start": START["start"] | {"mediaFormat": media_format}}
    assert messages.parse(json.dumps(start)) == messages.parse(json.dumps(START))


@pytest.mark.parametrize(
    ("timestamp", "read"),
    [
        ("20", 20),
        (1500, 1500),
        (2.5, 2.5),
        (None, None),
        ("soon", None),
        ([], None),
        ({"a": [{}]}, None),
        (True, None),
        ("nan", None),
        ("1e999", None),
        (10**400, None),
    ],
)
def test_an_odd_timestamp_is_no_reason_to_drop_audio(timestamp, read) -> None:
    part = {"payload": "/w==", "timestamp": timestamp}
    media = messages.parse(json.dumps({"event": "media", "media": part}))
    assert isinstance(media, messages.Media)
    assert media.media.timestamp_ms == read
    assert media.media.payload == b"\xff"


def test_a_timestamp_that_is_missing_or_too_large_for_json_readers_costs_no_audio() -> None:
    for part in ('{"payload": "/w=="}', '{"payload": "/w==", "timestamp": 1e999, "track": 1e999}'):
        media = messages.parse(f'{{"event": "media", "media": {part}}}')
        assert isinstance(media, messages.Media)
        assert media.media.timestamp_ms is None
        assert not media.media.is_from_bot


@pytest.mark.parametrize(
    ("tracks", "is_from_bot"),
    [
        (["outbound", "outbound_track"], True),
        (["inbound", "inbound_track", "", None, "sideways", 5, [], {}], False),
    ],
)
def test_every_track_but_the_bots_own_is_the_caller(tracks, is_from_bot: bool) -> None:
    for track in tracks:
        part = {"payload": "/w==", "track": track}
        media = messages.parse(json.dumps({"event": "media", "media": part}))
        assert isinstance(media, messages.Media)
        assert media.media.is_from_bot == is_from_bot


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "null",
        "7",
        "[]",
        '"media"',
        "{}",
        '{"event": 1}',
        '{"event": null}',
        '{"event": "unheard of"}',
        '{"event": "media"}',
        '{"event": "media", "media": null}',
        '{"event": "media", "media": {}}',
        '{"event": "media", "media": {"payload": null}}',
        '{"event": "media", "media": {"payload": 5}}',
        '{"event": "media", "media": {"payload": "abc"}}',
        '{"event": "media", "media": {"payload": "a b="}}',
        '{"event": "media", "media": {"payload": "\\ud800"}}',
        '{"event": "dtmf", "dtmf": {"digit": 1}}',
        '{"event": "mark", "mark": {}}',
        '{"event": "start", "streamSid": "MZ"}',
        '{"event": "media", "media": {"payload": "/w=="}} trailing',
        '{"event": "media", "media": ' + "[" * 100_000,
        '{"event": "media", "new": ' + "[" * 100_000,
        "[" * 1_000_000,
        '"\ud800"',
        b"\xff\xfe\x00",
        b"",
        None,
        12,
        ["event"],
        object(),
        memoryview(b'{"event": "stop"}')[::2],
        type("Text", (str,), {"isascii": lambda _: 1 / 0})("{}"),
        released(),
    ],
)
def test_every_unreadable_message_raises_a_message_error_with_a_short_text(data) -> None:
    with pytest.raises(messages.MessageError) as error:
        messages.parse(data)
    assert 0 < len(str(error.value)) < 200
    assert str(error.value).isascii()
    assert str(error.value).isprintable()


def test_an_error_never_carries_the_payload_or_control_characters() -> None:
    payload = "SECRETAUDIO" * 1000 + "!"
    with pytest.raises(messages.MessageError) as error:
        messages.parse(json.dumps({"event": "media", "media": {"payload": payload}}))
    assert "SECRET" not in str(error.value)
    with pytest.raises(messages.MessageError) as error:
        messages.parse(json.dumps({"event": "\x1b[31m\n" + "x" * 10_000}))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200


def test_a_message_over_the_limit_is_not_read_and_one_at_the_limit_is() -> None:
    text = json.dumps({"event": "media", "media": {"payload": "", "timestamp": ""}})
    room = messages.MAX_MESSAGE_BYTES - len(text)
    at_limit = text.replace('"timestamp": ""', f'"timestamp": "{"9" * room}"')
    assert len(at_limit) == messages.MAX_MESSAGE_BYTES
    assert isinstance(messages.parse(at_limit), messages.Media)
    with pytest.raises(messages.MessageError, match=r"^'1048577 bytes, more than 1048576'$"):
        messages.parse(at_limit + " ")


def test_the_limit_counts_utf_8_bytes_of_a_str_too() -> None:
    text = '{"event": "mark", "mark": {"name": "\u20ac\u20ac\u20ac"}}'
    size = len(text.encode())
    assert isinstance(messages.parse(text, max_bytes=size), messages.Mark)
    for limit in (len(text), size - 1):
        with pytest.raises(messages.MessageError, match=f"{size} bytes, more than {limit}"):
            messages.parse(text, max_bytes=limit)
    with pytest.raises(messages.MessageError, match="102 bytes, more than 100"):
        messages.parse(memoryview(bytes(102)).cast("h"), max_bytes=100)


def test_base64_is_checked_as_strictly_as_python_can() -> None:
    rng = random.Random(1)
    for _ in range(20_000):
        text = "".join(rng.choice("ABab01+/=-_ ") for _ in range(rng.randrange(9)))
        try:
            payload = messages.parse(json.dumps({"event": "media", "media": {"payload": text}}))
        except messages.MessageError:
            continue
        assert isinstance(payload, messages.Media)
        assert payload.media.payload == binascii.a2b_base64(text, strict_mode=True)


@pytest.mark.parametrize("stream_sid", [STREAM_SID, "", 'quote " and \\ and \u00e9', "MZ}}"])
def test_outbound_messages_have_exactly_the_documented_keys(stream_sid: str) -> None:
    for ulaw in (b"", b"\xff", bytes(range(256))):
        payload = base64.b64encode(ulaw).decode()
        assert json.loads(messages.media(stream_sid, ulaw)) == {
            "event": "media",
            "streamSid": stream_sid,
            "media": {"payload": payload},
        }
    assert json.loads(messages.clear(stream_sid)) == {"event": "clear", "streamSid": stream_sid}
    assert messages.mark(stream_sid, "a") == {
        "event": "mark",
        "streamSid": stream_sid,
        "mark": {"name": "a"},
    }


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (MARK, "my label"),
        ({"event": "mark", "mark": {"name": ""}}, ""),
        (MARK | {"event": "clear"}, None),
        ({"mark": {"name": "a"}}, None),
        ({"event": "mark", "mark": {"name": 5}}, None),
        ({"event": "mark", "mark": "a"}, None),
        ("mark", None),
        (None, None),
    ],
)
def test_only_a_message_that_sets_a_mark_has_a_marks_name(message, name) -> None:
    assert messages.mark_name(message) == name
