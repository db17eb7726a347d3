# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: embedsignature=True, embedsignature.format=clinic, binding=False
"""G.711 mu-law: 8-bit codes to and from 16-bit linear PCM.

Two tables, computed from the definition when the module loads, specify both directions. ulaw.h
computes the same for whole blocks of 16 samples; the tables convert the rest. The results are those
of the reference software of ITU-T G.191.

Source: ITU-T G.711 (11/1988), table 2; ITU-T G.191, g711.c.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, uint8_t

from pipecat_twilio.audio.buffers cimport get_buffer

cdef extern from "vectors.h":
    const char *choose_vector_path()

cdef extern from "ulaw.h" nogil:
    Py_ssize_t ulaw_vectors(const uint8_t *data, uint8_t *out, Py_ssize_t count, bint decoding)

cdef enum:
    LONG_INPUT = 16384  # in bytes; from here on it pays to release the GIL

cdef int16_t[256] DECODED
cdef uint8_t[16384] ENCODED  # by the sample's upper 14 bits, which are all that mu-law uses


cdef int16_t decoded(int code) noexcept:
    """Decodes one code as table 2 of G.711 defines it, in 16-bit scale."""
    cdef int inverted = ~code & 0xFF
    cdef int segment = (inverted >> 4) & 7
    cdef int magnitude = ((((inverted & 15) << 3) + 132) << segment) - 132
    return -magnitude if inverted & 0x80 else magnitude


cdef uint8_t encoded(int sample) noexcept:
    """Encodes one 14-bit sample (-8192..8191) as G.191 computes it."""
    cdef int negative = sample < 0
    cdef int biased = min((~sample if negative else sample) + 33, 8191)
    cdef int segment = 0
    while biased >> (segment + 6):
        segment += 1
    cdef int step = (biased >> (segment + 1)) & 15
    return ~(negative << 7 | segment << 4 | step) & 0xFF


cdef int i
for i in range(256):
    DECODED[i] = decoded(i)
for i in range(-8192, 8192):
    ENCODED[i & 0x3FFF] = encoded(i)

vector_path = choose_vector_path().decode()


cdef void convert(
    const uint8_t *data, uint8_t *out, Py_ssize_t count, bint decoding
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(ulaw_vectors(data, out, count, decoding), count):
        if decoding:
            (<int16_t *> out)[i] = DECODED[data[i]]
        else:  # the sample byte by byte: a caller's buffer may start at an odd address
            out[i] = ENCODED[(data[2 * i + 1] << 6) | (data[2 * i] >> 2)]


cdef bytes converted(data, str name, bint decoding):
    cdef Py_buffer view
    cdef Py_ssize_t count
    cdef uint8_t *into
    get_buffer(data, &view, name)
    try:
        if not decoding and view.len % 2:
            raise ValueError(f"{name} must hold whole 16-bit samples, got {view.len} bytes")
        count = view.len if decoding else view.len // 2
        out = PyBytes_FromStringAndSize(NULL, 2 * count if decoding else count)
        into = <uint8_t *> PyBytes_AS_STRING(out)
        if view.len < LONG_INPUT:
            convert(<const uint8_t *> view.buf, into, count, decoding)
        else:
            with nogil:
                convert(<const uint8_t *> view.buf, into, count, decoding)
        return out
    finally:
        PyBuffer_Release(&view)


def decode(ulaw) -> bytes:
    """Decodes mu-law to linear PCM.

    Args:
        ulaw: mu-law codes, one byte a sample; any C-contiguous buffer.

    Returns:
        As many signed 16-bit little-endian samples, from -32124 to 32124.

    Raises:
        TypeError: `ulaw` is not bytes-like.
        ValueError: `ulaw` is not C-contiguous.
    """
    return converted(ulaw, "ulaw", decoding=True)


def encode(pcm) -> bytes:
    """Encodes linear PCM as mu-law.

    Samples are rounded towards zero to the 14 bits that mu-law knows, clipped at its ends, and
    given the code of their interval, as ITU-T G.191 does. -4..-1 become 0x7F, 0..3 0xFF; both
    decode to 0.

    Args:
        pcm: Signed 16-bit little-endian samples, mono; any C-contiguous buffer.

    Returns:
        One mu-law code a sample.

    Raises:
        TypeError: `pcm` is not bytes-like.
        ValueError: `pcm` is not C-contiguous, or its number of bytes is odd.
    """
    return converted(pcm, "pcm", decoding=False)
