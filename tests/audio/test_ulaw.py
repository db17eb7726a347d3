"""mu-law against audioop and the published segment ends, on every code and every sample."""

import audioop
import threading
import time

import numpy as np
import pytest

from pipecat_twilio import ulaw

CODES = bytes(range(256))
SAMPLES = np.arange(-32768, 32768, dtype="<i2")

# G.711 table 2a/2b: the decision values at the ends of the segments, in 14-bit scale, and the
# code that begins there, for positive samples; a negative one has bit 7 clear.
SEGMENT_ENDS = [
    (31, 0xEF),
    (95, 0xDF),
    (223, 0xCF),
    (479, 0xBF),
    (991, 0xAF),
    (2015, 0x9F),
    (4063, 0x8F),
]


def encode(*samples: int) -> list[int]:
    return list(ulaw.encode(np.array(samples, dtype="<i2").tobytes()))


def test_every_code_decodes_as_audioop_decodes_it() -> None:
    assert ulaw.decode(CODES) == audioop.ulaw2lin(CODES, 2)


def test_every_sample_from_zero_up_encodes_as_audioop_encodes_it() -> None:
    pcm = SAMPLES[SAMPLES >= 0].tobytes()
    assert ulaw.encode(pcm) == audioop.lin2ulaw(pcm, 2)


def test_every_sample_below_minus_four_encodes_as_audioop_encodes_it_four_higher() -> None:
    samples = SAMPLES[SAMPLES < -4]
    assert ulaw.encode(samples.tobytes()) == audioop.lin2ulaw((samples + 4).tobytes(), 2)


def test_the_four_samples_below_zero_become_negative_zero() -> None:
    assert encode(-4, -3, -2, -1) == [0x7F] * 4
    assert ulaw.decode(b"\x7f\xff") == bytes(4)


def test_audioop_differs_on_508_samples_only() -> None:
    ours = np.frombuffer(ulaw.encode(SAMPLES.tobytes()), np.uint8)
    theirs = np.frombuffer(audioop.lin2ulaw(SAMPLES.tobytes(), 2), np.uint8)
    assert np.count_nonzero(ours != theirs) == 508


@pytest.mark.parametrize(("value", "code"), SEGMENT_ENDS)
def test_segments_end_where_g711_says(value: int, code: int) -> None:
    positive = 4 * value  # in 16-bit scale
    assert encode(positive, positive - 1) == [code, code + 1]
    assert encode(~positive, ~positive + 1) == [code & 0x7F, (code + 1) & 0x7F]


@pytest.mark.parametrize("offset", range(16))
def test_blocks_and_tails_agree_on_every_value_in_every_position(offset: int) -> None:
    # One value at a time takes the tables; in a block, the vectors. 16 is the block.
    shifted = CODES[offset:] + CODES[:offset]
    one_by_one = b"".join(ulaw.decode(bytes([code])) for code in shifted)
    assert ulaw.decode(shifted) == one_by_one
    pcm = np.roll(SAMPLES, -offset).tobytes()
    one_by_one = b"".join(ulaw.encode(pcm[i : i + 2]) for i in range(0, len(pcm), 2))
    assert ulaw.encode(pcm) == one_by_one


@pytest.mark.parametrize("length", range(70))
def test_every_length_around_the_vector_width_converts_whole(length: int) -> None:
    rng = np.random.default_rng(length)
    codes = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    pcm = rng.integers(-32768, 32768, length).astype("<i2")
    assert ulaw.decode(codes) == audioop.ulaw2lin(codes, 2)
    assert ulaw.encode(np.abs(pcm)) == audioop.lin2ulaw(np.abs(pcm).tobytes(), 2)


@pytest.mark.parametrize("size", [0, 4, 160, 100_000])
def test_any_c_contiguous_buffer_is_taken(size: int) -> None:
    data = np.random.default_rng(1).bytes(size)
    array = np.frombuffer(data, "<i2")
    for convert in (ulaw.decode, ulaw.encode):
        expected = convert(data)
        assert convert(bytearray(data)) == expected
        assert convert(memoryview(data)) == expected
        assert convert(array) == expected
        assert convert(array.reshape(2, -1)) == expected
        odd_address = memoryview(b"x" + data)[1:]
        assert convert(odd_address) == expected


def test_an_odd_number_of_bytes_is_no_pcm() -> None:
    with pytest.raises(ValueError, match="pcm must hold whole 16-bit samples, got 3 bytes"):
        ulaw.encode(b"abc")
    with pytest.raises(ValueError, match="got 1 bytes"):
        ulaw.encode(bytearray(1))


@pytest.mark.parametrize("convert", [ulaw.decode, ulaw.encode])
@pytest.mark.parametrize("wrong", [None, "text", 160, [1, 2]])
def test_an_object_that_is_no_buffer_is_a_type_error_that_names_the_argument(
    convert, wrong
) -> None:
    with pytest.raises(
        TypeError, match=f"(ulaw|pcm) must be bytes-like, got {type(wrong).__name__}"
    ):
        convert(wrong)


@pytest.mark.parametrize("convert", [ulaw.decode, ulaw.encode])
@pytest.mark.parametrize("scattered", [memoryview(bytes(8))[::2], np.zeros((4, 4), "<i2").T[:2]])
def test_a_scattered_buffer_is_a_value_error(convert, scattered) -> None:
    with pytest.raises(ValueError, match="must be C-contiguous"):
        convert(scattered)


def test_other_threads_run_while_long_input_is_converted() -> None:
    pcm = bytes(256 << 20)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    ulaw.encode(pcm)
    end = time.perf_counter()
    done.set()
    thread.join()
    # Leave out both ends, where the interpreter may switch threads around the call itself: for
    # 5 ms, its interval, of 30 or more.
    margin = (end - start) / 4
    assert any(start + margin < moment < end - margin for moment in ticks)
