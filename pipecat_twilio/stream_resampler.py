"""Pipecat's stream resampler interface on `SincResampler`: a delay of 4 ms at all rates."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler

from pipecat_twilio.audio.resampler import SincResampler
from pipecat_twilio.audio.samples import SampleJoiner, positive_int

DELAY_SECS = 0.004  # the telephone filter's, so that all audio of a call has the same delay
MIN_ZEROS, MAX_ZEROS = 8, 192  # below 2 kHz the delay is longer than 4 ms, above 48 kHz shorter

# How far the cutoff lies below the lower Nyquist frequency, times `num_zeros`. At one `beta` the
# width of the transition is a constant over `num_zeros`, so the stop band begins at the Nyquist
# frequency at all rates. The value is that of the telephone filter: 32 * (1 - 0.9125).
CUTOFF_ZEROS = 2.8


class SincStreamResampler(BaseAudioResampler):
    """Converts one stream of mono speech, chunk by chunk, in place of Pipecat's soxr stream.

    Audio is returned by the same `resample()` that takes it, with a delay of 4 ms at all rates
    (below 2 kHz: 8 periods). If `rate` is the lower of the two rates, the response is flat within
    0.1 dB up to `rate / 2 - 600` Hz (7.4 kHz from 24 to 16 kHz), and at least 84 dB down from
    `rate / 2` on. Equal rates return the bytes unchanged.

    A change of the rates starts a new stream and drops the 4 ms that the filter still holds: call
    `flush` first to get them. If a chunk ends inside a sample, its last byte waits for the next.

    Args:
        clear_after_secs: A chunk that comes later than this after the previous one starts a new
            stream: the old audio has no effect on it. None never starts a new stream. Default
            0.2, as Pipecat's.
        clock: Returns the time in seconds, to recognise pauses. Default `time.monotonic`.
        quality, kwargs: Ignored; arguments of Pipecat's resampler.

    Raises:
        ValueError: `clear_after_secs` is negative.
    """

    def __init__(
        self,
        *,
        quality: str = "VHQ",
        clear_after_secs: float | None = 0.2,
        clock: Callable[[], float] = monotonic,
        **kwargs: Any,
    ) -> None:
        del quality, kwargs
        self._clear_after_secs = clear_after_secs
        self._clock = clock
        self._rates: tuple[float, float] | None = None
        # A placeholder until the first audio tells the rates.
        self._resampler = SincResampler(8000, 8000, clear_after_secs=clear_after_secs)
        self._joiner = SampleJoiner(clear_after_secs)

    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        """Takes the next chunk and returns all audio that is due.

        Args:
            audio: Signed 16-bit little-endian samples, mono, at `in_rate`.
            in_rate: Rate of `audio` in Hz; some services pass whole floats.
            out_rate: Rate of the returned audio in Hz.

        Returns:
            Samples of the same format at `out_rate`.

        Raises:
            ValueError: A rate is not a positive whole number, or `SincResampler` refuses the two.
        """
        rates = (in_rate, out_rate)
        if rates != self._rates:
            whole = positive_int("in_rate", in_rate), positive_int("out_rate", out_rate)
            num_zeros = min(max(MIN_ZEROS, round(DELAY_SECS * min(whole))), MAX_ZEROS)
            self._resampler = SincResampler(
                *whole,
                clear_after_secs=self._clear_after_secs,
                num_zeros=num_zeros,
                rolloff=1 - CUTOFF_ZEROS / num_zeros,
            )
            self._rates = rates
        if in_rate == out_rate:
            return audio
        now = self._clock()
        return self._resampler.process(self._joiner.join(audio, 2, rates, now), now)

    async def flush(self) -> bytes:
        """Returns the last 4 ms, which the filter still holds, and starts a new stream."""
        self._joiner.clear()
        return self._resampler.flush()

    async def reset(self) -> None:
        """Forgets the audio that the filter still holds, and starts a new stream."""
        self._joiner.clear()
        self._resampler.reset()
