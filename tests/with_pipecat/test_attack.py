"""What hostile or broken messages and frames cost: a few lines in the log, and no memory."""

import gc
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from streams import media, payload_of, ready, speech

from pipecat_twilio import SincResampler, ulaw

GOOD = media(bytes(160))
FLOOD, MIB = 10_000, 1 << 20
SECRET = "SECRETAUDIO" * 20
BAD = [
    *("", "\x1b[31m", GOOD[:-1], GOOD + "\ud800", b"\xff\xfe" + SECRET.encode()),
    json.dumps({"event": "\x1b[31m" + "x" * 1000}),
    *(
        json.dumps({"event": event, part: field})
        for part, field in (("media", {"payload": f"{SECRET}!"}), ("media", SECRET), ("dtmf", {}))
        for event in ("media", "dtmf", "unheard of")
    ),
    json.dumps({"event": "media", "media": {"timestamp": [], "payload": f"{SECRET}!"}}),
    *(json.dumps({"event": "dtmf", "dtmf": {"digit": d}}) for d in (SECRET, "z" * 1000)),
    *(json.dumps({"event": "media", "media": {"payload": p}}) for p in ([SECRET], f"{SECRET}!")),
]


@pytest.fixture
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Traces memory; returns the bytes that are in use, and the most that were."""
    tracemalloc.start()
    yield tracemalloc.get_traced_memory
    tracemalloc.stop()


async def test_a_flood_of_bad_messages_is_few_short_lines_without_audio_and_no_memory(
    log, traced
) -> None:
    serializer = await ready()
    flood = itertools.cycle(BAD)
    for data in itertools.islice(flood, 1000):
        assert await serializer.deserialize(data) is None
    before, _ = traced()
    for data in itertools.islice(flood, FLOOD):
        assert await serializer.deserialize(data) is None
    gc.collect()
    assert traced()[0] - before < FLOOD  # bytes: less than one a message
    # Each power of two, and the first key.
    assert len(log) == 15
    assert "8192 dropped so far" in log[-1]
    for line in log:
        assert line.startswith("WARNING")
        assert len(line) < 200
        assert "SECRETAUDIO" not in line.replace("SECRETAUD'", "")  # a key is quoted in short
        assert line.rstrip("\n").isprintable()
    assert await serializer.deserialize(GOOD) is not None


@pytest.mark.parametrize("letter", ["A", "\u20ac"])
@pytest.mark.parametrize("kind", [str, str.encode])
async def test_a_message_over_1_mib_is_dropped_with_a_warning_before_it_is_parsed(
    kind, letter: str, log: list[str], traced
) -> None:
    serializer = await ready()
    data = kind(GOOD.replace('"payload": "', f'"payload": "{letter * (8 * MIB)}'))
    tracemalloc.reset_peak()
    before, _ = traced()
    assert await serializer.deserialize(data) is None
    assert traced()[1] - before < 100_000
    assert "more than 1048576" in log[0]
    at_limit = kind(GOOD + " " * (MIB - len(GOOD)))
    assert await serializer.deserialize(at_limit) is not None
    assert await serializer.deserialize(at_limit + kind(" ")) is None


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        *(({"sample_rate": rate}, "_rate") for rate in (10**400, 16000.5, 0, 44101)),
        *(({"num_channels": odd}, "num_channels must be") for odd in (None, -1, 65, 2**40)),
        *(({"audio": odd}, "audio") for odd in (np.zeros(9, np.float32), bytes(300_002))),
        ({"audio": "text"}, "bytes-like"),
    ],
)
async def test_an_odd_audio_frame_is_dropped_with_a_warning(fields, fault, log, traced) -> None:
    serializer = await ready()
    frame = OutputAudioRawFrame(bytes(1200 * 250), 250, 1)  # all that Twilio buffers
    assert await serializer.serialize(frame) is not None
    frame = OutputAudioRawFrame(bytes(320), 250, 1)
    for name, value in fields.items():
        setattr(frame, name, value)
    tracemalloc.reset_peak()
    before, _ = traced()
    assert await serializer.serialize(frame) is None
    assert traced()[1] - before < 100_000
    (line,) = log
    assert line.startswith("WARNING")
    assert fault in line
    assert len(line) < 300


async def test_buffers_and_whole_numbers_of_any_type_are_taken() -> None:
    frame = OutputAudioRawFrame(b"", 16000, 1)
    frame.audio, frame.num_channels = np.frombuffer(speech(320), "<i2"), 1.0
    frame.sample_rate = np.int64(16000)
    text = await (await ready()).serialize(frame)
    assert payload_of(text) == ulaw.encode(SincResampler(16000, 8000).process(speech(320)))
