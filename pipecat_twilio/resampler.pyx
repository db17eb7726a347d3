# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: embedsignature=True, embedsignature.format=clinic, binding=False
"""A streaming sample-rate converter for live speech: 4 ms late, never a burst.

A polyphase filter computes each output sample from a window over the input that ends at the
newest sample the output may depend on, so whatever comes in leaves on the same call. The window
and a fraction of an input period are all the state there is.
"""

import time
from math import isfinite

cimport cython
from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int16_t, int64_t, uint8_t
from libc.string cimport memmove, memset

from pipecat_twilio.buffers cimport get_buffer

from pipecat_twilio import filters

cdef extern from "vectors.h":
    const char *choose_vector_path()

cdef extern from "fir.h" nogil:
    enum: BLOCK, OVERREAD, MOST_TIMES, HALF_TAPS
    void pcm_to_float(const uint8_t *pcm, float *samples, Py_ssize_t count)
    struct bank:
        const float *rows
        const float *halves
        Py_ssize_t taps, zeros, up, down, whole, part

    struct cursor:
        const float *row
        const float *x
        Py_ssize_t phase
        Py_ssize_t second

    void fir(const bank *bank, cursor *at, int16_t *pcm, Py_ssize_t outputs)

cdef enum:
    LONG_INPUT = 8192  # bytes from which another thread gains more than the switch costs

vector_path = choose_vector_path().decode()


@cython.final
cdef class SincResampler:
    """Converts one direction of one call from one sample rate to another, chunk by chunk.

    After n samples since the last reset exactly ceil(n * out_rate / in_rate) have been returned,
    and the same samples in any chunking give the same bytes. The output is delayed by
    `delay_secs`; that much is lost when the history is dropped instead of flushed. Samples are
    rounded half to even and saturate at the bounds of 16 bits.

    The filter is a Kaiser-windowed sinc. By default, where the lower rate is 8 kHz, it is flat
    within 0.1 dB up to 3400 Hz, the telephone band, and at least 84 dB down from 4000 Hz on.

    Args:
        in_rate: Rate of the audio that comes in, in Hz.
        out_rate: Rate of the audio that is returned, in Hz. Equal rates pass the bytes through.
        clear_after_secs: The history is dropped when a chunk comes more than this after the one
            before, so that what was said before a pause does not ring into what comes after it.
            None never drops it. Default 0.2, as Pipecat's resamplers have it.
        clock: Tells the time, in seconds, that `clear_after_secs` is measured by. It should be
            monotonic; a step back never drops the history.
        num_zeros: Half length of the filter, in periods of the lower rate. It sets the delay:
            the default of 32 is 4 ms at 8 kHz.
        rolloff: Cutoff as a share of the lower Nyquist frequency, above 0 and at most 1.
        beta: Shape of the Kaiser window, at least 0: the attenuation beyond the cutoff against
            the width of the transition to it.

    Raises:
        TypeError: `clock` cannot be called, or `clear_after_secs` is no number.
        ValueError: A rate is not a positive integer, the two need a filter bank of more than
            2**19 taps, or another argument is out of its range.
    """

    cdef readonly long in_rate
    cdef readonly long out_rate
    cdef readonly object clear_after_secs
    cdef object _clock
    cdef double _clear_after_secs
    cdef double _last_call_secs
    cdef object _rows  # keeps the bank's memory, and so does
    cdef object _halves
    cdef bank _bank
    cdef int64_t _delay_ticks  # the filter's delay, in ticks of in_rate * up
    cdef Py_ssize_t _before  # samples of the round before the next output's, for fir_whole
    cdef Py_ssize_t _history  # these, and all but the newest of those that an output needs
    cdef float *_window  # the history, then room for a block
    cdef cursor _next  # where the next output gets its taps, and its samples in the window
    cdef bint _called  # since the last reset: there is a last call to be idle since
    cdef bint _fresh  # no sample was taken since the last reset
    cdef bint _busy

    def __cinit__(
        self,
        in_rate,
        out_rate,
        *,
        clear_after_secs=0.2,
        clock=time.monotonic,
        num_zeros=32,
        rolloff=0.9125,
        beta=8.5,
    ):
        up, down = filters.reduced_ratio(in_rate, out_rate)
        if clear_after_secs is not None and not float(clear_after_secs) >= 0:
            raise ValueError(f"clear_after_secs must be None or >= 0, got {clear_after_secs!r}")
        if not callable(clock):
            raise TypeError(f"clock must be callable, got {clock!r}")
        if not isinstance(num_zeros, int) or num_zeros < 1:
            raise ValueError(f"num_zeros must be a positive integer, got {num_zeros!r}")
        if not 0 < rolloff <= 1:
            raise ValueError(f"rolloff must be above 0 and at most 1, got {rolloff!r}")
        if not (isfinite(beta) and beta >= 0):
            raise ValueError(f"beta must be finite and >= 0, got {beta!r}")
        taps = filters.bank_taps(up, down, num_zeros)
        if up * taps > filters.MAX_BANK_TAPS:
            raise ValueError(
                f"in_rate={in_rate} to out_rate={out_rate} needs a bank of {up * taps} taps, "
                f"more than {filters.MAX_BANK_TAPS}"
            )
        self.in_rate = in_rate
        self.out_rate = out_rate
        self.clear_after_secs = clear_after_secs
        self._clear_after_secs = -1 if clear_after_secs is None else clear_after_secs
        self._clock = clock
        self._fresh = True
        if up == down:
            return
        self._rows = filters.polyphase_bank(up, down, num_zeros, float(rolloff), float(beta))
        cdef const float[:, :] rows = self._rows
        self._bank = bank(
            rows=&rows[0, 0],
            halves=NULL,
            taps=taps,
            zeros=filters.zeros_around(taps, down),
            up=up,
            down=down,
            whole=down // up,
            part=down % up,
        )
        cdef const float[:, :, :, :] halves
        if min(up, down) == 1 and max(up, down) <= MOST_TIMES and num_zeros == HALF_TAPS:
            halves = filters.half_filters(up, down, num_zeros, float(rolloff), float(beta))
            self._halves = halves.base
            self._bank.halves = &halves[0, 0, 0, 0]
            self._before = down
        self._delay_ticks = num_zeros * max(up, down)
        self._history = self._before + taps - 1
        self._window = <float *> PyMem_Calloc(self._window_size(), 1)
        if not self._window:
            raise MemoryError
        self._next = self._first()

    def __dealloc__(self):
        PyMem_Free(self._window)

    def __sizeof__(self):
        return object.__sizeof__(self) + (self._window_size() if self._window else 0)

    def __repr__(self):
        return f"SincResampler({self.in_rate}, {self.out_rate})"

    cdef Py_ssize_t _window_size(self) noexcept:
        # What the filter loops read beyond the end never counts.
        return (self._history + BLOCK + OVERREAD) * sizeof(float)

    cdef cursor _first(self) noexcept:
        return cursor(row=self._bank.rows, x=self._window + self._before, phase=0, second=0)

    @property
    def delay_secs(self) -> float:
        """How much later a sound leaves than it came in, in seconds."""
        return self._delay_ticks / (<double> self.in_rate * max(1, self._bank.up))

    def process(self, pcm, now=None) -> bytes:
        """Takes the next chunk and returns all audio that is due.

        Args:
            pcm: Signed 16-bit little-endian samples, mono, at `in_rate`; any C-contiguous buffer.
            now: The time, in seconds, where the caller knows it; None asks `clock`.

        Returns:
            Samples of the same kind at `out_rate`.

        Raises:
            RuntimeError: Another thread is inside `process` of this object.
            TypeError: `pcm` is not bytes-like, or `now` is no number.
            ValueError: `pcm` is not C-contiguous, or its number of bytes is odd.
        """
        if type(pcm) is bytes:  # what a call hands in, without a buffer's overhead
            return self._take(
                pcm, <const uint8_t *> PyBytes_AS_STRING(pcm), PyBytes_GET_SIZE(pcm), now
            )
        cdef Py_buffer view
        get_buffer(pcm, &view, "pcm")
        try:
            return self._take(None, <const uint8_t *> view.buf, view.len, now)
        finally:
            PyBuffer_Release(&view)

    def flush(self) -> bytes:
        """Returns the last `delay_secs` of audio, still in the history, and resets."""
        if self._fresh or not self._window:
            self.reset()
            return b""
        cdef int64_t left = self._delay_ticks - self._ticks_ahead()
        cdef Py_ssize_t outputs = max(0, -(-left // self._bank.down))
        silence = bytes(2 * -(-self._delay_ticks // self._bank.up))
        tail = self._convert(<const uint8_t *> PyBytes_AS_STRING(silence), len(silence) // 2)
        self.reset()
        return tail[:2 * outputs]

    def reset(self) -> None:
        """Forgets all audio taken so far, as if the object were new."""
        self._check_idle()
        if self._window:
            memset(self._window, 0, self._window_size())
            self._next = self._first()
        self._called = False
        self._fresh = True

    cdef int _check_idle(self) except -1:
        if self._busy:
            raise RuntimeError(f"{self!r} is in use by another thread")
        return 0

    cdef bytes _take(self, bytes same, const uint8_t *pcm, Py_ssize_t size, now):
        if size % 2:
            raise ValueError(f"pcm must hold whole 16-bit samples, got {size} bytes")
        if not self._window:
            return same if same is not None else PyBytes_FromStringAndSize(<const char *> pcm, size)
        self._check_idle()
        if self._clear_after_secs >= 0:
            self._clear_if_idle(self._clock() if now is None else now)
        if size:
            self._fresh = False
        return self._convert(pcm, size // 2)

    cdef int _clear_if_idle(self, double now) except -1:
        if self._called and now - self._last_call_secs > self._clear_after_secs:
            self.reset()
        self._called = True
        self._last_call_secs = now
        return 0

    cdef bytes _convert(self, const uint8_t *pcm, Py_ssize_t count):
        cdef bytes converted = PyBytes_FromStringAndSize(NULL, 2 * self._outputs_due(count))
        cdef int16_t *out = <int16_t *> PyBytes_AS_STRING(converted)
        if 2 * count < LONG_INPUT:
            self._filter(pcm, count, out)
            return converted
        self._busy = True
        with nogil:
            self._filter(pcm, count, out)
        self._busy = False
        return converted

    cdef int64_t _ticks_ahead(self) noexcept nogil:
        """Returns how many ticks the next output lies after the end of what was taken."""
        cdef Py_ssize_t samples = self._next.x - self._window - self._before
        return samples * <int64_t> self._bank.up + self._next.phase

    @cython.cdivision(True)  # the divided is positive, and so is the divisor
    cdef Py_ssize_t _outputs_due(self, Py_ssize_t count) noexcept nogil:
        """Returns how many outputs the next `count` samples complete."""
        cdef int64_t ticks = <int64_t> count * self._bank.up - self._ticks_ahead()
        return (ticks + self._bank.down - 1) // self._bank.down if ticks > 0 else 0

    cdef void _filter(self, const uint8_t *pcm, Py_ssize_t count, int16_t *out) noexcept nogil:
        cdef Py_ssize_t block, outputs
        while count > 0:
            block = min(count, BLOCK)
            pcm_to_float(pcm, self._window + self._history, block)
            outputs = self._outputs_due(block)
            fir(&self._bank, &self._next, out, outputs)
            self._next.x -= block
            memmove(self._window, self._window + block, self._history * sizeof(float))
            pcm += 2 * block
            out += outputs
            count -= block
