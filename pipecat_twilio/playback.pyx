# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: embedsignature=True, embedsignature.format=clinic, binding=False
"""An estimate of what Twilio, which buffers audio and plays it in order, has yet to play."""

cimport cython
from libc.stdint cimport uint8_t


@cython.final
cdef class Playback:
    """Follows the audio sent to one stream. `now` is always a monotonic time, in seconds.

    Args:
        rate: Bytes of mu-law played per second.
    """

    cdef double _rate
    cdef double _ends
    cdef double _speech_ends

    def __cinit__(self, double rate):
        self._rate = rate

    def clear(self) -> None:
        """Takes note that Twilio was told to empty its buffer."""
        self._ends = self._speech_ends = 0

    def add(self, bytes ulaw not None, double now) -> None:
        """Takes note that `ulaw` was sent."""
        cdef const uint8_t *codes = ulaw
        cdef Py_ssize_t size = len(ulaw), audible = size
        cdef double starts = max(now, self._ends)
        while audible and codes[audible - 1] & 0x7F == 0x7F:  # either code of a sample of 0
            audible -= 1
        self._ends = starts + size / self._rate
        if audible:
            self._speech_ends = starts + audible / self._rate

    def remaining_secs(self, double now) -> float:
        """Returns how long Twilio still plays, at most; trailing digital silence does not count."""
        return max(0.0, self._speech_ends - now)
