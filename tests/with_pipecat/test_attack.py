"""What hostile or broken messages and frames cost: a few lines in the log, and no memory."""

import gc
import itertools
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from streams import BAD, FLOOD, GOOD, MIB, payload_of, ready, speech, traced

from pipecat_twilio import SincResampler, ulaw


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
    assert "an unusable frame (1 dropped so far): Unspeakable()" in log[0]
    assert "an unusable message (2 dropped so far): Unspeakable()" in log[1]
    assert sum(serializer.call_report.dropped.values()) == 2


class TestOddAudioFrames:
    @staticmethod
    def frame(audio: Any = bytes(640), rate: Any = 16000, channels: Any = 1) -> OutputAudioRawFrame:
        frame = OutputAudioRawFrame(b"", 16000, 1)
        frame.audio, frame.sample_rate, frame.num_channels = audio, rate, channels
        return frame

    async def test_buffers_and_whole_numbers_of_any_type_are_taken(self) -> None:
        frame = self.frame(np.frombuffer(speech(320), "<i2"), np.int64(16000), 1.0)
        text = await (await ready()).serialize(frame)
        assert payload_of(text) == ulaw.encode(SincResampler(16000, 8000).process(speech(320)))

    @pytest.mark.parametrize(
        "fields",
        [
            *({"rate": rate} for rate in (10**400, None, 16000.5, 0, float("nan"), 44101)),
            *({"channels": odd} for odd in (None, 1.5, "2", 0, -1, float("inf"), 65, 2**40)),
            *({"audio": audio} for audio in (None, "text", np.zeros(320, np.float32))),
        ],
    )
    async def test_any_other_value_is_dropped_with_a_warning(self, fields, log: list[str]) -> None:
        serializer = await ready()
        with traced():
            assert await serializer.serialize(self.frame(**fields)) is None
            assert tracemalloc.get_traced_memory()[1] < 100_000
        assert [line.split()[0] for line in log] == ["WARNING"]
        assert len(log[0]) < 300
        for name, fault in (("rate", "_rate"), ("channels", "num_channels must be")):
            assert (fault in log[0]) == (name in fields)
        assert await serializer.serialize(self.frame()) is not None

    @pytest.mark.parametrize(("rate", "channels"), [(250, 1), (400, 1), (250, 2)])
    async def test_more_audio_than_twilio_buffers_is_dropped_with_a_warning(
        self, rate: int, channels: int, log: list[str]
    ) -> None:
        # At 250 Hz a few MiB would become hundreds.
        serializer, max_bytes = await ready(), 1200 * rate * channels
        long = self.frame(bytes(max_bytes + 2 * channels), rate, channels)
        assert await serializer.serialize(long) is None
        assert f"at most {max_bytes} bytes" in log[0]
        assert await serializer.serialize(self.frame(bytes(max_bytes), rate, channels)) is not None
