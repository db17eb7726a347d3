"""The wire format, against the documented examples and Python's own JSON and base64."""

import base64
import binascii
import json
import random

import pytest

from pipecat_twilio import messages

STREAM_SID = "MZ18ad3ab5a668481ce02b83e7395059f0"

# What Twilio's documentation shows.
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "ACxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "streamSid": STREAM_SID,
        "callSid": "CAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"FirstName": "Jane", "LastName": "Doe", "RemoteParty": "Bob"},
    },
    "streamSid": STREAM_SID,
}
MEDIA = {
    "event": "media",
    "sequenceNumber": "3",
    "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": "/38A"},
    "streamSid": STREAM_SID,
}
DTMF = {
    "event": "dtmf",
    "streamSid": STREAM_SID,
    "sequenceNumber": "5",
    "dtmf": {"track": "inbound_track", "digit": "1"},
}
MARK = {
    "event": "mark",
    "sequenceNumber": "4",
    "streamSid": STREAM_SID,
    "mark": {"name": "my label"},
}
STOP = {
    "event": "stop",
    "sequenceNumber": "5",
    "streamSid": STREAM_SID,
    "stop": {
        "accountSid": "ACxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "callSid": "CAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    },
}


def test_the_documented_messages_are_read() -> None:
    assert messages.parse(json.dumps(CONNECTED)) == messages.Connected("Call", "1.0.0")
    start = messages.parse(json.dumps(START))
    assert isinstance(start, messages.Start)
    assert start.stream_sid == start.start.stream_sid == STREAM_SID
    assert start.start.call_sid == "CAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    assert start.start.account_sid == "ACxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    assert start.start.tracks == ("inbound",)
    assert start.start.custom_parameters == START["start"]["customParameters"]
    assert start.start.media_format == messages.MediaFormat("audio/x-mulaw", 8000, 1)
    media = messages.parse(json.dumps(MEDIA))
    assert isinstance(media, messages.Media)
    assert media.media.payload == b"\xff\x7f\x00"
    assert media.media.track == "inbound"
    assert media.media.timestamp == 5
    assert messages.parse(json.dumps(DTMF)) == messages.Dtmf(messages.DtmfPart("1"))
    assert messages.parse(json.dumps(MARK)) == messages.Mark(
        messages.MarkPart("my label"), STREAM_SID
    )
    assert messages.parse(json.dumps(STOP)) == messages.Stop()


def test_text_bytes_key_order_and_unknown_keys_make_no_difference() -> None:
    expected = messages.parse(json.dumps(MEDIA))
    reordered = {**{key: MEDIA[key] for key in reversed(MEDIA)}, "new": [1, {"a": None}]}
    assert messages.parse(json.dumps(reordered)) == expected
    assert messages.parse(json.dumps(MEDIA).encode()) == expected


@pytest.mark.parametrize(
    ("timestamp", "read"),
    [
        ("20", 20),
        (1500, 1500),
        (2.5, 2.5),
        (None, None),
        ("soon", None),
        ([], None),
        (10**400, None),
    ],
)
def test_an_odd_timestamp_is_no_reason_to_drop_audio(timestamp, read) -> None:
    part = {"payload": "/w==", "timestamp": timestamp}
    media = messages.parse(json.dumps({"event": "media", "media": part}))
    assert isinstance(media, messages.Media)
    assert media.media.timestamp == read
    assert media.media.payload == b"\xff"


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
        '{"event": "media", "media": {"payload": "/w==", "track": "sideways"}}',
        '{"event": "media", "media": {"payload": "/w==", "track": "sideways", "timestamp": []}}',
        '{"event": "media", "media": {"payload": "a b="}}',
        '{"event": "media", "media": {"payload": "\\ud800"}}',
        '{"event": "dtmf", "dtmf": {"digit": 1}}',
        '{"event": "mark", "mark": {}}',
        '{"event": "start", "streamSid": "MZ"}',
        '{"event": "media", "media": {"payload": "/w=="}} trailing',
        '{"event": "media", "media": ' + "[" * 100_000,
        "[" * 1_000_000,
        '"\ud800"',
        b"\xff\xfe\x00",
        b"",
        None,
        12,
        ["event"],
        object(),
    ],
)
def test_what_cannot_be_read_is_one_kind_of_error_with_a_short_text(data) -> None:
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
    with pytest.raises(messages.MessageError, match="1048577 long, more than 1048576"):
        messages.parse(at_limit + " ")


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
    outbound = messages.OutboundMessages(stream_sid)
    for ulaw in (b"", b"\xff", bytes(range(256))):
        payload = base64.b64encode(ulaw).decode()
        assert json.loads(outbound.media(ulaw)) == {
            "event": "media",
            "streamSid": stream_sid,
            "media": {"payload": payload},
        }
    assert json.loads(outbound.clear) == {"event": "clear", "streamSid": stream_sid}
    assert messages.mark(stream_sid, "a") == {
        "event": "mark",
        "streamSid": stream_sid,
        "mark": {"name": "a"},
    }
