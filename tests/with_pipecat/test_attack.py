"""What a hostile or broken sender costs: a few lines in the log, and no memory."""

import base64
import itertools
import json
import tracemalloc
from types import SimpleNamespace

import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from streams import ready, traced

from pipecat_twilio import TwilioFrameSerializer

FLOOD = 100_000
MIB = 1 << 20
PAYLOAD = "SECRETAUDIO" * 20
GOOD = json.dumps({"event": "media", "media": {"payload": base64.b64encode(bytes(160)).decode()}})

BAD = [
    "",
    "\x1b[31m",
    GOOD[:-1],
    GOOD + "\ud800",
    b"\xff\xfe" + PAYLOAD.encode(),
    *(
        text.replace("PAYLOAD", PAYLOAD)
        for text in (
            '{"event": "media", "media": {"payload": "PAYLOAD!"}}',
            '{"event": "media", "media": {"payload": ["PAYLOAD"]}}',
            '{"event": "media", "media": "PAYLOAD"}',
            '{"event": "media", "payload": "PAYLOAD"}',
            '{"event": "media", "media": {"payload": "PAYLOAD',
            '{"event": "media", "media": {"timestamp": [], "payload": "PAYLOAD!"}}',
            '{"event": "dtmf", "dtmf": {"digit": "PAYLOAD"}}',
            '{"event": "unheard of", "media": {"payload": "PAYLOAD"}}',
        )
    ),
]


async def test_a_flood_of_bad_messages_is_a_few_short_lines_without_the_audio(
    log: list[str],
) -> None:
    serializer = await ready()
    for data in itertools.islice(itertools.cycle(BAD), FLOOD):
        assert await serializer.deserialize(data) is None
    assert 0 < len(log) <= 20
    for line in log:
        assert line.startswith("WARNING")
        assert len(line) < 200
        assert "SECRETAUDIO" not in line
        assert line.rstrip("\n").isprintable()
    assert await serializer.deserialize(GOOD) is not None


async def test_the_log_quotes_only_a_short_excerpt_of_a_message(log: list[str]) -> None:
    serializer = await ready()
    for data in (
        json.dumps({"event": "\x1b[31m" + "x" * 100_000}),
        json.dumps({"event": "media", "y" * 100_000: 0}),
        json.dumps({"event": "dtmf", "dtmf": {"digit": "z" * 100_000}}),
    ):
        assert await serializer.deserialize(data) is None
    assert log
    assert all(len(line) < 300 and line.rstrip("\n").isprintable() for line in log)


@pytest.mark.parametrize("letter", ["A", "\u20ac"])
@pytest.mark.parametrize("kind", [str, str.encode])
async def test_a_message_over_1_mib_is_dropped_with_a_warning_before_it_is_parsed(
    kind, letter: str, log: list[str]
) -> None:
    serializer = await ready()
    text = GOOD.replace('"payload": "', f'"payload": "{letter * (32 * MIB)}')
    data = kind(text)
    with traced():
        assert await serializer.deserialize(data) is None
        # Parsing it takes 24 MiB for the audio alone.
        assert tracemalloc.get_traced_memory()[1] < 100_000
    assert "more than 1048576" in log[0]
    at_limit = kind(GOOD + " " * (MIB - len(GOOD)))
    assert await serializer.deserialize(at_limit) is not None
    assert await serializer.deserialize(at_limit + kind(" ")) is None


async def test_the_limit_can_be_set() -> None:
    serializer = await ready(max_message_bytes=len(GOOD))
    assert await serializer.deserialize(GOOD) is not None
    assert await serializer.deserialize(GOOD + " ") is None
    with pytest.raises(ValueError, match="max_message_bytes"):
        TwilioFrameSerializer.InputParams(max_message_bytes=0)


async def test_the_first_of_its_kind_is_logged_however_many_of_another_came_before(log) -> None:
    serializer = await ready()
    for _ in range(4):
        await serializer.deserialize("{")
    await serializer.deserialize('{"event": "dtmf", "dtmf": {"digit": "A"}}')
    assert "a key (5 dropped so far)" in log[-1]


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("has no text")


def fail(*_: object) -> None:
    raise Unspeakable


async def test_a_fault_that_has_no_text_is_a_fault_like_any_other(log: list[str]) -> None:
    serializer = await ready()
    frame = OutputAudioRawFrame(bytes(320), 16000, 1)
    frame.sample_rate = type("Rate", (), {"__int__": fail, "__eq__": fail})()
    assert await serializer.serialize(frame) is None
    serializer._input_resampler = SimpleNamespace(resample=fail)
    assert await serializer.deserialize(GOOD) is None
    assert "an unusable frame (1 dropped so far): Unspeakable" in log[0]
    assert "an unusable message (2 dropped so far): Unspeakable" in log[1]
    assert serializer.call_report.dropped.total() == 2


async def test_bad_messages_leave_nothing_behind() -> None:
    serializer = await ready()

    async def flood(count: int) -> None:
        for data in itertools.islice(itertools.cycle(BAD), count):
            await serializer.deserialize(data)

    await flood(1000)
    with traced():
        await flood(10_000)
        assert tracemalloc.get_traced_memory()[0] < 100_000  # 10 bytes a message


@pytest.mark.parametrize(
    ("rate", "samples", "channels"),
    [(250, 150_001, 1), (250, 10_000_000, 1), (400, 240_001, 1), (250, 150_001, 2)],
)
async def test_more_audio_in_a_frame_than_twilio_holds_is_dropped_with_a_warning(
    rate: int, samples: int, channels: int, log: list[str]
) -> None:
    # At 250 Hz a few MiB would become hundreds.
    serializer = await ready()
    most = 1200 * rate * channels
    too_long = OutputAudioRawFrame(bytes(2 * samples * channels), rate, channels)
    assert await serializer.serialize(too_long) is None
    assert f"at most {most} bytes" in log[0]
    assert await serializer.serialize(OutputAudioRawFrame(bytes(most), rate, channels)) is not None
