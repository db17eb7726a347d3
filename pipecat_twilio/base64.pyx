# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: embedsignature=True, embedsignature.format=clinic, binding=False
"""Base64 in the middle of a text, written once: each message with audio for Twilio is one.

Source: RFC 4648, section 4.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    Py_ssize_t PyUnicode_GET_LENGTH(str text)
    uint8_t *PyUnicode_1BYTE_DATA(str text)

cdef extern from "vectors.h":
    const char *choose_vector_path()

cdef extern from "base64.h" nogil:
    Py_ssize_t base64_vectors(const uint8_t *data, Py_ssize_t size, uint8_t *text)

vector_path = choose_vector_path().decode()

cdef const char *ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef inline void put_four(uint8_t a, uint8_t b, uint8_t c, uint8_t *text) noexcept nogil:
    text[0] = ALPHABET[a >> 2]
    text[1] = ALPHABET[(a << 4 | b >> 4) & 63]
    text[2] = ALPHABET[(b << 2 | c >> 6) & 63]
    text[3] = ALPHABET[c & 63]


@cython.cdivision(True)  # of sizes, which are never negative
cdef void encode_into(const uint8_t *data, Py_ssize_t size, uint8_t *text) noexcept nogil:
    cdef Py_ssize_t encoded = base64_vectors(data, size, text)
    data += encoded
    size -= encoded
    text += encoded // 3 * 4
    while size >= 3:
        put_four(data[0], data[1], data[2], text)
        data += 3
        size -= 3
        text += 4
    if size:
        put_four(data[0], data[1] if size == 2 else 0, 0, text)
        text[3] = b"="
        if size == 1:
            text[2] = b"="


@cython.final
cdef class Template:
    """A text with a gap to fill with base64.

    Args:
        before: ASCII text.
        after: ASCII text.

    Raises:
        TypeError: One of them is no str.
        ValueError: One of them is not ASCII.
    """

    cdef str _before
    cdef str _after

    def __cinit__(self, str before not None, str after not None):
        for text in (before, after):
            if not text.isascii():
                raise ValueError(f"before and after must be ASCII, got {text!r}")
        self._before = before
        self._after = after

    def fill(self, bytes data not None) -> str:
        """Returns `before`, `data` as base64, and `after`.

        Raises:
            TypeError: `data` is not bytes.
        """
        cdef Py_ssize_t before_size = PyUnicode_GET_LENGTH(self._before)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t encoded_size = (size + 2) // 3 * 4
        cdef Py_ssize_t after_size = PyUnicode_GET_LENGTH(self._after)
        cdef str text = PyUnicode_New(before_size + encoded_size + after_size, 127)
        cdef uint8_t *into = PyUnicode_1BYTE_DATA(text)
        memcpy(into, PyUnicode_1BYTE_DATA(self._before), before_size)
        encode_into(<const uint8_t *> PyBytes_AS_STRING(data), size, into + before_size)
        into += before_size + encoded_size
        memcpy(into, PyUnicode_1BYTE_DATA(self._after), after_size)
        return text
