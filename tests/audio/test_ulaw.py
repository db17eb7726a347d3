"""mu-law against audioop and the published segment ends, on every code and every sample."""

import audioop
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pipecat_twilio import SincResampler, ulaw

CODES = bytes(range(256))
SAMPLES = np.arange(-32768, 32768, dtype="<i2")

# G.711 table 2a/2b: the decision values at the ends of the segments, in 14-bit scale, and the
# code that begins there, for positive samples; a negative one has bit 7 clear.
SEGMENT_ENDS = [(31, 0xEF), (95, 0xDF), (223, 0xCF), (479, 0xBF), (991, 0xAF)]
SEGMENT_ENDS += [(2015, 0x9F), (4063, 0x8F)]


def encode(*samples: int) -> list[int]:
    return list(ulaw.encode(np.array(samples, dtype="<i2").tobytes()))


def test_every_code_and_sample_is_converted_as_by_audioop_except_below_zero() -> None:
    assert ulaw.decode(CODES) == audioop.ulaw2lin(CODES, 2)
    positive, negative = SAMPLES[SAMPLES >= 0].tobytes(), SAMPLES[SAMPLES < -4]
    assert ulaw.encode(positive) == audioop.lin2ulaw(positive, 2)
    # G.191 takes the one's complement of a 14-bit sample, audioop the two's complement.
    assert ulaw.encode(negative.tobytes()) == audioop.lin2ulaw((negative + 4).tobytes(), 2)
    assert encode(-4, -3, -2, -1) == [0x7F] * 4
    assert ulaw.decode(b"\x7f\xff") == bytes(4)


def resample(pcm: Any) -> bytes:
    return SincResampler(8000, 16000).process(pcm)


@pytest.mark.parametrize("offset", range(16))
def test_vectors_and_tables_agree_on_every_value_in_every_position(offset: int) -> None:
    # One value at a time takes the tables; in a block of 16, the vectors; the rest, the tables.
    shifted = CODES[offset:] + CODES[:offset]
    one_by_one = b"".join(ulaw.decode(bytes([code])) for code in shifted)
    pcm = np.roll(SAMPLES, -offset).tobytes()
    code_by_code = b"".join(ulaw.encode(pcm[i : i + 2]) for i in range(0, len(pcm), 2))
    for cut in (0, offset):
        assert ulaw.decode(shifted[cut:]) == one_by_one[2 * cut :]
        assert ulaw.encode(pcm[2 * cut :]) == code_by_code[cut:]


@pytest.mark.parametrize("convert", [ulaw.decode, ulaw.encode, resample])
@pytest.mark.parametrize("size", [0, 4, 160, 100_000])
def test_any_c_contiguous_buffer_is_taken(convert: Callable, size: int) -> None:
    data = np.random.default_rng(1).bytes(size)
    array = np.frombuffer(data, "<i2")
    odd_address = memoryview(b"x" + data)[1:]
    for kind in (bytearray(data), memoryview(data), odd_address, array, array.reshape(2, -1)):
        assert convert(kind) == convert(data)


@pytest.mark.parametrize("pcm", [b"abc", bytearray(1)])
def test_an_odd_number_of_bytes_is_refused_as_pcm(pcm: bytes) -> None:
    with pytest.raises(ValueError, match=f"pcm must hold whole 16-bit samples, got {len(pcm)} b"):
        ulaw.encode(pcm)


@pytest.mark.parametrize(("convert", "name"), [(ulaw.decode, "ulaw"), (ulaw.encode, "pcm")])
def test_an_object_that_is_not_a_c_contiguous_buffer_is_refused_by_name(
    convert: Callable, name: str
) -> None:
    for wrong in (None, "text", 160, [1, 2]):
        got = type(wrong).__name__
        with pytest.raises(TypeError, match=f"{name} must be bytes-like, got {got}"):
            convert(wrong)
    for scattered in (memoryview(bytes(8))[::2], np.zeros((4, 4), "<i2").T[:2]):
        with pytest.raises(ValueError, match=f"{name} must be C-contiguous"):
            convert(scattered)


@pytest.fixture
def no_switches() -> Iterator[None]:
    """A thread runs only when another one releases the GIL, not when its interval is over."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("convert", [ulaw.decode, ulaw.encode, SincResampler(24000, 8000).process])
@pytest.mark.usefixtures("no_switches")
def test_other_threads_run_while_long_input_is_converted(convert: Callable) -> None:
    audio = bytes(4 << 20)

    def ran_meanwhile() -> bool:
        start, ran = threading.Lock(), threading.Event()
        start.acquire()
        thread = threading.Thread(target=lambda: (start.acquire(), ran.set()))
        thread.start()
        start.release()
        convert(audio)
        meanwhile = ran.is_set()
        thread.join()
        return meanwhile

    # The other thread may be too late to wake up, but not every time.
    assert any(ran_meanwhile() for _ in range(2000))
