"""What a hostile or broken sender costs: a few lines in the log, and no memory."""

import gc
import itertools
import tracemalloc
from types import SimpleNamespace

import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from streams import BAD, FLOOD, GOOD, MIB, ready, traced


async def test_a_flood_of_bad_messages_is_few_short_lines_without_audio_and_no_memory(log) -> None:
    serializer = await ready()
    flood = itertools.cycle(BAD)
    for data in itertools.islice(flood, 1000):
        assert await serializer.deserialize(data) is None
    with traced():
        for data in itertools.islice(flood, FLOOD):
            assert await serializer.deserialize(data) is None
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < FLOOD  # bytes: less than one a message
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
    kind, letter: str, log: list[str]
) -> None:
    serializer = await ready()
    data = kind(GOOD.replace('"payload": "', f'"payload": "{letter * (8 * MIB)}'))
    with traced():
        assert await serializer.deserialize(data) is None
        assert tracemalloc.get_traced_memory()[1] < 100_000
    assert "more than 1048576" in log[0]
    at_limit = kind(GOOD + " " * (MIB - len(GOOD)))
    assert await serializer.deserialize(at_limit) is not None
    assert await serializer.deserialize(at_limit + kind(" ")) is None


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
    assert sum(serializer.call_report.dropped.values()) == 2
