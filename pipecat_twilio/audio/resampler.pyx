# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: embedsignature=True, embedsignature.format=clinic, binding=False
"""A streaming sample-rate converter for live speech, with a delay of 4 ms and no bursts.

A polyphase filter computes each output from a window over the input, which ends at the newest
sample that it needs. The state is that window and a fraction of an input period.
"""

import time

cimport cython
from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int16_t, int64_t, uint8_t
from libc.string cimport memset

from pipecat_twilio.audio.buffers cimport get_buffer

from pipecat_twilio.audio import filter_design as filters

cdef extern from "vectors.h":
    const char *choose_vector_path()

cdef extern from "fir.h" nogil:
    enum: WINDOW_ROOM

    struct fir:
        const float *bank
        float *window
        Py_ssize_t taps, up, down, held, phase

    Py_ssize_t fir_outputs_in(const fir *fir, int64_t ticks)
    void fir_run(fir *fir, const uint8_t *pcm, Py_ssize_t count, int16_t *out)

cdef enum:
    LONG_INPUT = 4096  # in samples; from here on it pays to release the GIL

vector_path = choose_vector_path().decode()


cdef double as_double(value, str name) except? -1:
    try:
        return value
    except TypeError:
        raise TypeError(f"{name} must be a number, got {value!r:.99}") from None
    except OverflowError:
        raise ValueError(f"{name} must fit a float, got {value!r:.99}") from None


@cython.final
cdef class SincResampler:
    """Converts one direction of one call from one sample rate to another, chunk by chunk.

    For the first n samples exactly ceil(n * out_rate / in_rate) are returned, with a delay of
    `delay_secs`, and the same bytes in any chunking. They are rounded half to even and saturate at
    the bounds of 16 bits. After a reset, flush or pause, the object is as if it were new. Call
    `flush` at the end of an utterance to get its last `delay_secs`.

    The filter is a Kaiser-windowed sinc. By default, where the lower rate is 8 kHz, it is flat
    within 0.1 dB up to 3400 Hz, the telephone band, and at least 84 dB down from 4000 Hz on.

    All usual rates go together, and so do 8 kHz and each multiple of 50 Hz from 1 to 48 kHz. A
    complicated ratio, such as 44101 to 8000 Hz, would need too large a filter and is refused.
    Designing a filter takes 10 ms at most; a process keeps the last eight.

    Args:
        in_rate: Rate of the input, from 1 to 768000 Hz.
        out_rate: Rate of the output, from 1 to 768000 Hz. Equal rates return the bytes unchanged;
            otherwise neither may be more than 32 times the other, and the filter may have 112,896
            taps: max(2 * num_zeros, 32) * max(in_rate, out_rate) / gcd(in_rate, out_rate).
        clear_after_secs: A chunk that comes later than this after the previous one comes after a
            pause. None: there are no pauses. Default 0.2, as in Pipecat's resamplers.
        num_zeros: Half length of the filter, from 1 to 192 periods of the lower rate: the delay.
            The default of 32 is 4 ms at 8 kHz.
        rolloff: Cutoff as a share of the lower Nyquist frequency, above 0 and at most 1.
        beta: Shape of the Kaiser window, from 0 to 700: more attenuates more, with a wider
            transition.

    Raises:
        TypeError: A rate or `num_zeros` is not an integer, or another argument is not a number.
        ValueError: An argument is out of its range.
    """

    cdef readonly long in_rate, out_rate
    cdef readonly object clear_after_secs
    cdef double _clear_after_secs, _last_call_secs  # the former is infinite for None
    cdef object _bank  # owns the memory of _fir.bank
    cdef fir _fir
    cdef int64_t _delay_ticks  # the filter's delay, in ticks of in_rate * up
    cdef bint _fresh  # no sample was taken since the last reset; _last_call_secs is not valid
    cdef bint _busy

    def __cinit__(
        self, in_rate, out_rate, *, clear_after_secs=0.2, num_zeros=32, rolloff=0.9125, beta=8.5
    ):
        num_zeros = filters.checked_integer("num_zeros", num_zeros, filters.MAX_NUM_ZEROS)
        up, down = filters.reduced_ratio(in_rate, out_rate, num_zeros)
        limit_secs = INFINITY if clear_after_secs is None else clear_after_secs
        self._clear_after_secs = as_double(limit_secs, "clear_after_secs")
        if not self._clear_after_secs >= 0:
            raise ValueError(f"clear_after_secs must be None or >= 0, got {clear_after_secs!r}")
        cdef double cutoff = as_double(rolloff, "rolloff"), shape = as_double(beta, "beta")
        if not 0 < cutoff <= 1:
            raise ValueError(f"rolloff must be above 0 and at most 1, got {rolloff!r:.99}")
        if not 0 <= shape <= filters.MAX_BETA:
            raise ValueError(f"beta must be from 0 to {filters.MAX_BETA:g}, got {beta!r:.99}")
        self.in_rate = in_rate
        self.out_rate = out_rate
        self.clear_after_secs = clear_after_secs
        self._fresh = True
        if up == down:
            return
        self._bank = filters.polyphase_bank(up, down, num_zeros, cutoff, shape)
        cdef const float[:, ::1] bank = self._bank
        self._fir = fir(
            bank=&bank[0, 0], window=NULL, taps=bank.shape[1], up=up, down=down, held=0, phase=0
        )
        self._delay_ticks = num_zeros * max(up, down)
        self._fir.window = <float *> PyMem_Calloc(self._window_size(), 1)
        if not self._fir.window:
            raise MemoryError
        self._clear()

    def __dealloc__(self):
        PyMem_Free(self._fir.window)

    def __repr__(self):
        return f"SincResampler({self.in_rate}, {self.out_rate})"

    cdef Py_ssize_t _window_size(self) noexcept nogil:
        return (self._fir.taps + WINDOW_ROOM) * sizeof(float) if self._fir.taps else 0

    @property
    def delay_secs(self) -> float:
        """The delay of the output, in seconds."""
        return self._delay_ticks / (<double> self.in_rate * max(1, self._fir.up))

    def process(self, pcm, now=None) -> bytes:
        """Takes the next chunk and returns all audio that is due.

        Args:
            pcm: Signed 16-bit little-endian samples, mono, at `in_rate`; any C-contiguous buffer.
                An empty one changes nothing: it does not end or shorten a pause.
            now: The time in seconds, to recognise pauses; None is `time.monotonic()`. A step back
                is never a pause.

        Returns:
            Samples of the same format at `out_rate`.

        Raises:
            RuntimeError: Another call is using this object. That call is not affected.
            TypeError: `pcm` is not bytes-like, or `now` is not a number.
            ValueError: `pcm` is not C-contiguous, or its number of bytes is odd, or `now` is not
                finite.
        """
        cdef Py_buffer view
        cdef double secs = 0
        self._begin()
        try:
            if now is not None:
                secs = as_double(now, "now")
                if not isfinite(secs):
                    raise ValueError(f"now must be finite, got {now!r:.99}")
            elif isfinite(self._clear_after_secs):
                secs = time.monotonic()
            get_buffer(pcm, &view, "pcm")
            try:
                if view.len % 2:
                    raise ValueError(f"pcm must hold whole 16-bit samples, got {view.len} bytes")
                if not view.len or not self._fir.window:
                    return PyBytes_FromStringAndSize(<char *> view.buf, view.len)
                if not self._fresh and secs - self._last_call_secs > self._clear_after_secs:
                    self._clear()
                self._last_call_secs = secs
                self._fresh = False
                return self._run(<const uint8_t *> view.buf, view.len // 2)
            finally:
                PyBuffer_Release(&view)
        finally:
            self._busy = False

    def flush(self) -> bytes:
        """Returns the last `delay_secs` of audio, which the filter still holds, and resets.

        Raises:
            RuntimeError: Another call is using this object.
        """
        self._begin()
        try:
            if self._fresh:
                return b""
            silence = bytes(2 * (self._delay_ticks // self._fir.up + 1))
            outputs = fir_outputs_in(&self._fir, self._delay_ticks)
            tail = self._run(<const uint8_t *> PyBytes_AS_STRING(silence), len(silence) // 2)
            self._clear()
            return tail[: 2 * outputs]
        finally:
            self._busy = False

    def reset(self) -> None:
        """Forgets all audio taken so far, as if the object were new.

        Raises:
            RuntimeError: Another call is using this object.
        """
        self._begin()
        self._clear()
        self._busy = False

    cdef int _begin(self) except -1:
        """Marks the object busy, or raises if a call is under way.

        That call may be in another thread, without the GIL, or in this one, if its argument runs
        Python code. `_busy` needs the GIL: do not declare `freethreading_compatible`.
        """
        if self._busy:
            raise RuntimeError(f"{self!r} is in use by another call")
        self._busy = True
        return 0

    cdef bytes _run(self, const uint8_t *pcm, Py_ssize_t count):
        cdef Py_ssize_t outputs = fir_outputs_in(&self._fir, count * <int64_t> self._fir.up)
        cdef bytes converted = PyBytes_FromStringAndSize(NULL, 2 * outputs)
        cdef int16_t *out = <int16_t *> PyBytes_AS_STRING(converted)
        if count < LONG_INPUT:
            fir_run(&self._fir, pcm, count, out)
        else:
            with nogil:
                fir_run(&self._fir, pcm, count, out)
        return converted

    cdef void _clear(self) noexcept nogil:
        if self._fir.window:
            memset(self._fir.window, 0, self._window_size())
        self._fir.held = self._fir.taps - 1
        self._fir.phase = 0
        self._fresh = True
