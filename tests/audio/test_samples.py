"""Whole samples of one channel, from any kind of audio."""

import numpy as np
import pytest

from pipecat_twilio.audio.samples import SampleJoiner, mix_down, pcm_bytes, positive_int


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_mix_down_is_the_rounded_mean_of_the_channels(channels: int) -> None:
    samples = np.random.default_rng(1).integers(-32768, 32768, (4000, channels)).astype("<i2")
    mean = samples.mean(axis=1, dtype=np.float64)
    mixed = np.frombuffer(mix_down(samples.tobytes(), channels), "<i2")
    # A mean of half a step goes either way, as the sum in float32 falls; nothing else does.
    assert np.abs(mixed - mean).max() <= 0.5 + 2e-3
    same = np.arange(-32768, 32768).astype("<i2")
    assert mix_down(np.repeat(same, channels).tobytes(), channels) == same.tobytes()


class TestSampleJoiner:
    @pytest.mark.parametrize("size", [2, 4, 6])
    def test_chunks_of_any_size_give_whole_samples_of_the_same_stream(self, size: int) -> None:
        stream = np.random.default_rng(1).bytes(600)
        for chunk in range(1, 20):
            joiner = SampleJoiner(0.2)
            starts = range(0, len(stream), chunk)
            pieces = [joiner.join(stream[i : i + chunk], size, "format", 50) for i in starts]
            assert b"".join(pieces) == stream
            assert all(len(piece) % size == 0 for piece in pieces)

    @pytest.mark.parametrize(
        ("clear_after_secs", "pause_secs", "key", "is_kept"),
        [
            *((0.25, 0.25, "format", True), (0.25, 0.26, "format", False)),
            *((None, 1e6, "format", True), (0.25, -9, "format", True)),
            (None, 0, "another format", False),
        ],
    )
    def test_part_of_a_sample_is_forgotten_after_a_pause_or_a_change_of_format(
        self, clear_after_secs, pause_secs, key, is_kept
    ) -> None:
        joiner = SampleJoiner(clear_after_secs)
        assert joiner.join(b"abc", 2, "format", 50) == b"ab"
        joined = joiner.join(b"de", 2, key, 50 + pause_secs)
        assert joined == (b"cd" if is_kept else b"de")
        assert joiner.join(b"fgh", 2, key, 50 + pause_secs) == (b"efgh" if is_kept else b"fg")
        joiner.clear()
        assert joiner.join(b"ij", 2, key, 50 + pause_secs) == b"ij"


SAMPLES = np.arange(10, dtype="<i2")


@pytest.mark.parametrize(
    "audio",
    [
        *(SAMPLES.tobytes(), bytearray(20), SAMPLES, SAMPLES[::2]),
        *(np.arange(20, dtype=dtype) for dtype in ("u1", "i1")),
        *(memoryview(b"abcd").cast(code) for code in ("c", "b", "@B", "@h")),
    ],
)
def test_any_buffer_of_16_bit_samples_or_bytes_is_pcm(audio) -> None:
    pcm = pcm_bytes(audio, 20)
    assert pcm == bytes(audio)
    assert pcm is audio or type(audio) is not bytes


@pytest.mark.parametrize(
    ("audio", "error", "text"),
    [
        *(
            (np.zeros(10, dtype), ValueError, "audio must be 16-bit samples, got a buffer of")
            for dtype in ("<f4", "<i4", ">i2", "<u2")
        ),
        *(
            (audio, ValueError, "audio must have at most 5 bytes, got 6")
            for audio in (bytes(6), bytearray(6), np.zeros(3, "<i2"))
        ),
        *((audio, TypeError, "buffer|bytes-like") for audio in (None, "text", 5, [1, 2])),
    ],
)
def test_any_other_audio_is_refused(audio, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        pcm_bytes(audio, 1000 if "samples" in text else 5)


@pytest.mark.parametrize("value", [1, 8000, 10**400, 8000.0, np.int64(8000), np.float32(2)])
def test_a_whole_number_above_zero_of_any_type_is_a_rate(value) -> None:
    number = positive_int("rate", value)
    assert type(number) is int
    assert number == value


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, None, "8000", float("nan"), float("inf"), [8000], b"8", "x" * 10_000]
)
def test_anything_else_is_refused_as_a_rate_by_name_and_in_short(value) -> None:
    with pytest.raises(ValueError, match="rate must be a positive integer, got") as error:
        positive_int("rate", value)
    assert len(str(error.value)) < 200
