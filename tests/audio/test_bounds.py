"""No loop reads or writes beyond its buffers: the input ends where readable memory ends.

Here one byte too many is a segmentation fault in any build. `tox -e sanitize` also checks the
memory that the modules allocate. The sizes are just below and above the steps of all loops: blocks
of 16 codes, tiles of 80 rounds, and the 1024 samples that the resampler takes at a time.
"""

import ctypes
import mmap
import random
import sys
from collections.abc import Callable
from functools import partial

import pytest

from pipecat_twilio import SincResampler, ulaw

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")

SIZES = [*range(90), *(at + i for at in (160, 240, 480, 1024, 2048) for i in (-1, 0, 1))]
SIZES += [5000]
PROT_NONE = 0  # POSIX; Python's mmap module does not have it

# All ratios that fir_rounds takes, and the next one down; others; the largest ratios; and filters
# of rows that end in the middle of a vector.
RATES = [
    *((8000, 8000 * times) for times in (2, 3, 4, 5, 6, 32)),
    *((8000 * times, 8000) for times in (2, 3, 4, 5, 6, 7, 32)),
    *((12000, 8000), (22050, 8000), (8000, 11025), (44100, 48000), (14_400, 14_500)),
]

Place = Callable[[bytes], memoryview]


@pytest.fixture(params=["first byte", "last byte"])
def at_edge(request: pytest.FixtureRequest) -> Place:
    """Places bytes so that the memory before the first or after the last one cannot be read."""
    page, room = mmap.PAGESIZE, -(-2 * SIZES[-1] // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    for fence in (start, start + page + room):
        assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), PROT_NONE) == 0

    def place(data: bytes) -> memoryview:
        at = page if request.param == "first byte" else page + room - len(data)
        memory[at : at + len(data)] = data
        return memoryview(memory)[at : at + len(data)]

    return place


def byte_after(data: bytes) -> int:
    """Returns the zero that CPython puts behind the last byte."""
    return ctypes.string_at(id(data) + bytes.__basicsize__ - 1 + len(data), 1)[0]


@pytest.mark.parametrize("convert", [ulaw.decode, ulaw.encode])
def test_the_codec_keeps_to_its_buffers(convert: Callable, at_edge: Place) -> None:
    for size in SIZES:
        data = random.Random(size).randbytes(2 * size)
        converted = convert(at_edge(data))
        assert byte_after(converted) == 0
        assert converted == convert(data)


@pytest.mark.parametrize("num_zeros", [7, 32, 96])
@pytest.mark.parametrize("rates", RATES)
def test_the_resampler_keeps_to_its_buffers(
    rates: tuple[int, int], num_zeros: int, at_edge: Place
) -> None:
    new = partial(SincResampler, *rates, clear_after_secs=None, num_zeros=num_zeros)
    # One goes through all sizes, at whatever phase the one before left it; one starts anew.
    going, reference = new(), new()
    for size in SIZES if num_zeros == 32 else SIZES[::9]:
        pcm = random.Random(size).randbytes(2 * size)
        fresh, again = new(), new()
        converted, started = going.process(at_edge(pcm)), fresh.process(at_edge(pcm))
        rest = fresh.flush()
        assert byte_after(converted) == byte_after(started) == byte_after(rest) == 0
        assert converted == reference.process(pcm)
        assert (started, rest) == (again.process(pcm), again.flush())
