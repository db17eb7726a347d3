"""The filter's design: which ratios have one, and what a bank costs."""

import weakref
from itertools import permutations

import numpy as np
import pytest

from pipecat_twilio.audio import filter_design as filters
from pipecat_twilio.audio.resampler import SincResampler

USUAL_RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000]


def test_usual_rates_and_multiples_of_50_hz_all_have_a_filter_with_4_ms() -> None:
    telephone = [(rate, 8000) for rate in range(1000, 48_001, 50)]
    for in_rate, out_rate in [*permutations(USUAL_RATES, 2), *telephone]:
        num_zeros = min(round(0.004 * min(in_rate, out_rate)), 192)
        up, down = filters.reduced_ratio(in_rate, out_rate, num_zeros)
        assert filters.reduced_ratio(out_rate, in_rate, num_zeros) == (down, up)
        assert up * in_rate == down * out_rate


@pytest.mark.parametrize(
    ("rates", "num_zeros"),
    [((44101, 8000), 32), ((8000, 7999), 32), ((32000, 44100), 129), ((56_448, 56_447), 1)],
)
def test_a_ratio_whose_filter_is_too_large_is_refused_by_name(rates: tuple, num_zeros: int) -> None:
    with pytest.raises(ValueError, match=f"in_rate.* 112896 .*={rates[0]} .*out_rate={rates[1]}"):
        SincResampler(*rates, num_zeros=num_zeros)


@pytest.mark.parametrize("rolloff", [1e-9, 0.5, 1.0])
@pytest.mark.parametrize("beta", [0, 8.5, 700])
@pytest.mark.parametrize("num_zeros", [1, 2, 128])
def test_no_sum_can_be_too_large_to_be_rounded(num_zeros: int, beta: float, rolloff: float) -> None:
    # fir.h rounds sums of up to 2**22: 128 times the loudest sample.
    for up, down in [(2, 1), (1, 2), (1, 6), (1, 7), (160, 441), (441, 320), (7, 5)]:
        bank = filters.polyphase_bank(up, down, num_zeros, rolloff, beta)
        assert np.abs(bank).sum(axis=1).max() < 128


def test_a_bank_is_designed_once_and_cannot_be_written_to() -> None:
    bank = filters.polyphase_bank(2, 1, 32, 0.9125, 8.5)
    assert filters.polyphase_bank(2, 1, 32, 0.9125, 8.5) is bank
    with pytest.raises(ValueError, match="read-only"):
        bank[0] = 1


def test_banks_in_the_cache_take_4_mib_at_most() -> None:
    refs = [
        weakref.ref(filters.polyphase_bank(320, 441, 128, 0.9 + i / 1e3, 8.5)) for i in range(20)
    ]
    kept = [ref() for ref in refs if ref() is not None]
    assert len(kept) == 8
    assert sum(bank.nbytes for bank in kept) < 4 << 20
