"""What a hostile or broken sender may cost: lines in the log, memory, and nothing else."""

import base64
import itertools
import json
import tracemalloc
from types import SimpleNamespace

import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer

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


async def ready(params: object = None) -> TwilioFrameSerializer:
    params = params or TwilioFrameSerializer.InputParams(auto_hang_up=False)
    serializer = TwilioFrameSerializer("MZ1", params=params)
    await serializer.setup(SimpleNamespace(audio_in_sample_rate=16000))
    return serializer


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


async def test_what_is_quoted_of_a_message_is_a_short_excerpt(log: list[str]) -> None:
    serializer = await ready()
    for data in (
        json.dumps({"event": "\x1b[31m" + "x" * 100_000}),
        json.dumps({"event": "media", "y" * 100_000: 0}),
        json.dumps({"event": "dtmf", "dtmf": {"digit": "z" * 100_000}}),
    ):
        assert await serializer.deserialize(data) is None
    assert log
    assert all(len(line) < 300 and line.rstrip("\n").isprintable() for line in log)


@pytest.mark.parametrize("kind", [str, str.encode])
async def test_a_message_over_1_mib_is_dropped_with_a_warning_before_it_is_parsed(
    kind, log: list[str]
) -> None:
    serializer = await ready()
    data = kind(json.dumps({"event": "media", "media": {"payload": "A" * (32 * MIB)}}))
    tracemalloc.start()
    try:
        assert await serializer.deserialize(data) is None
        # Parsing it takes 24 MiB for the audio alone.
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert "more than 1048576" in log[0]
    at_limit = kind(GOOD + " " * (MIB - len(GOOD)))
    assert await serializer.deserialize(at_limit) is not None
    assert await serializer.deserialize(at_limit + kind(" ")) is None


async def test_the_limit_can_be_set(log: list[str]) -> None:
    params = TwilioFrameSerializer.InputParams(auto_hang_up=False, max_message_bytes=len(GOOD))
    serializer = await ready(params)
    assert await serializer.deserialize(GOOD) is not None
    assert await serializer.deserialize(GOOD + " ") is None
    with pytest.raises(ValueError, match="max_message_bytes"):
        TwilioFrameSerializer.InputParams(max_message_bytes=0)


async def test_pipecats_own_params_have_the_limit_too() -> None:
    serializer = await ready(PipecatSerializer.InputParams(auto_hang_up=False))
    assert await serializer.deserialize(GOOD + " " * MIB) is None


async def test_bad_messages_leave_nothing_behind() -> None:
    serializer = await ready()

    async def flood(count: int) -> None:
        for data in itertools.islice(itertools.cycle(BAD), count):
            await serializer.deserialize(data)

    await flood(1000)
    tracemalloc.start()
    try:
        await flood(10_000)
        assert tracemalloc.get_traced_memory()[0] < 100_000  # 10 bytes a message
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("rate", "samples"), [(1, 601), (1, 10_000_000), (100, 60_001)])
async def test_more_audio_in_a_frame_than_twilio_holds_is_dropped_with_a_warning(
    rate: int, samples: int, log: list[str]
) -> None:
    # At 1 Hz a few KiB would become GiB.
    serializer = await ready()
    assert await serializer.serialize(OutputAudioRawFrame(bytes(2 * samples), rate, 1)) is None
    assert "10 minutes" in log[0]
    assert await serializer.serialize(OutputAudioRawFrame(bytes(1200 * rate), rate, 1)) is not None
