"""Whole samples of one channel, from any kind of audio."""

import numpy as np
import pytest

from pipecat_twilio.audio.samples import (
    Collector,
    SampleJoiner,
    mix_down,
    pcm_bytes,
    positive_int,
)


class TestMixDown:
    """The mean of the channels, rounded to the nearest."""

    @pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
    def test_it_is_the_rounded_mean_of_the_channels(self, channels: int) -> None:
        samples = np.random.default_rng(1).integers(-32768, 32768, (4000, channels)).astype("<i2")
        mean = samples.mean(axis=1, dtype=np.float64)
        mixed = np.frombuffer(mix_down(samples.tobytes(), channels), "<i2")
        # A mean of half a step goes either way, as the sum in float32 falls; nothing else does.
        assert np.abs(mixed - mean).max() <= 0.5 + 2e-3

    def test_channels_that_are_the_same_are_what_they_were(self) -> None:
        samples = np.arange(-32768, 32768).astype("<i2")
        for channels in (2, 3, 7):
            assert mix_down(np.repeat(samples, channels).tobytes(), channels) == samples.tobytes()


class TestSampleJoiner:
    """Samples cut by the end of a chunk."""

    @pytest.mark.parametrize("size", [2, 4, 6])
    def test_chunks_of_any_size_are_whole_samples_of_the_same_stream(self, size: int) -> None:
        stream = np.random.default_rng(1).bytes(600)
        for chunk in range(1, 20):
            joiner = SampleJoiner(0.2)
            pieces = [
                joiner.join(stream[i : i + chunk], size, "format", 50)
                for i in range(0, len(stream), chunk)
            ]
            assert b"".join(pieces) == stream
            assert all(len(piece) % size == 0 for piece in pieces)

    def test_a_part_is_forgotten_when_the_format_changes(self) -> None:
        joiner = SampleJoiner(0.2)
        assert joiner.join(b"abc", 2, 16000, 50) == b"ab"
        assert joiner.join(b"de", 2, 8000, 50) == b"de"
        assert joiner.join(b"fg", 2, 16000, 50) == b"fg"

    @pytest.mark.parametrize(
        ("clear_after_secs", "pause_secs", "kept"),
        [(0.25, 0.25, True), (0.25, 0.26, False), (None, 1e6, True), (0.25, -9, True)],
    )
    def test_a_part_is_forgotten_after_a_pause(self, clear_after_secs, pause_secs, kept) -> None:
        joiner = SampleJoiner(clear_after_secs)
        joiner.join(b"abc", 2, "format", 50)
        joined = joiner.join(b"de", 2, "format", 50 + pause_secs)
        assert joined == (b"cd" if kept else b"de")

    def test_clear_forgets_a_part(self) -> None:
        joiner = SampleJoiner(None)
        joiner.join(b"abc", 2, "format", 50)
        joiner.clear()
        assert joiner.join(b"de", 2, "format", 50) == b"de"


class TestCollector:
    """Collects audio until there is enough for a frame."""

    def test_add_returns_all_audio_when_there_is_enough(self) -> None:
        collector = Collector()
        assert collector.add(b"abc", 4, 8000) == b""
        assert collector.add(b"def", 4, 8000) == b"abcdef"
        assert collector.add(b"g", 4, 8000) == b""
        assert collector.take() == b"g"
        assert collector.take() == b""

    def test_audio_collected_at_another_rate_is_forgotten(self) -> None:
        collector = Collector()
        collector.add(b"abc", 4, 8000)
        assert collector.add(b"de", 4, 16000) == b""
        assert collector.add(b"fg", 4, 16000) == b"defg"


class TestPcmBytes:
    """16-bit samples from any buffer."""

    def test_bytes_are_returned_as_they_are(self) -> None:
        audio = b"abcd"
        assert pcm_bytes(audio, 4) is audio

    @pytest.mark.parametrize("dtype", ["<i2", "u1", "i1"])
    def test_buffers_of_samples_or_bytes_are_taken(self, dtype: str) -> None:
        samples = np.arange(10).astype(dtype)
        assert pcm_bytes(samples, 20) == samples.tobytes()
        assert pcm_bytes(samples[::2], 20) == samples[::2].tobytes()
        assert pcm_bytes(bytearray(samples), 20) == samples.tobytes()

    @pytest.mark.parametrize("code", ["c", "b", "@B", "@h"])
    def test_views_of_every_16_bit_or_byte_format_are_taken(self, code: str) -> None:
        assert pcm_bytes(memoryview(b"abcd").cast(code), 4) == b"abcd"

    @pytest.mark.parametrize("dtype", ["<f4", "<i4", ">i2", "<u2"])
    def test_a_buffer_of_something_else_is_refused(self, dtype: str) -> None:
        with pytest.raises(ValueError, match="audio must be 16-bit samples, got a buffer of"):
            pcm_bytes(np.zeros(10, dtype), 1000)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_more_than_it_may_have_is_refused_by_size(self, kind: type) -> None:
        with pytest.raises(ValueError, match="audio must have at most 4 bytes, got 5"):
            pcm_bytes(kind(b"abcde"), 4)

    def test_the_size_is_counted_in_bytes_whatever_the_items_are(self) -> None:
        with pytest.raises(ValueError, match="audio must have at most 4 bytes, got 6"):
            pcm_bytes(np.zeros(3, "<i2"), 4)

    @pytest.mark.parametrize("audio", [None, "text", 5, [1, 2]])
    def test_an_object_that_is_no_buffer_is_a_type_error(self, audio) -> None:
        with pytest.raises(TypeError):
            pcm_bytes(audio, 4)


class TestPositiveInt:
    """Rates and numbers of channels."""

    @pytest.mark.parametrize("value", [1, 8000, 10**400, 8000.0, np.int64(8000), np.float32(2)])
    def test_whole_numbers_above_zero_are_ints(self, value) -> None:
        number = positive_int("rate", value)
        assert type(number) is int
        assert number == value

    @pytest.mark.parametrize(
        "value", [0, -1, 1.5, None, "8000", float("nan"), float("inf"), [8000], b"8"]
    )
    def test_anything_else_is_refused_by_name(self, value) -> None:
        with pytest.raises(ValueError, match="rate must be a positive integer, got"):
            positive_int("rate", value)

    def test_a_long_one_is_quoted_in_short(self) -> None:
        with pytest.raises(ValueError, match="got 'xxx") as error:
            positive_int("rate", "x" * 10_000)
        assert len(str(error.value)) < 200
