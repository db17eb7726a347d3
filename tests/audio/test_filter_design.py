"""The filter's design: what its polyphase bank promises at all rates."""

import weakref

import numpy as np
import pytest

from pipecat_twilio.audio import filter_design as filters

RATIOS = [(2, 1), (1, 2), (3, 1), (1, 3), (1, 6), (1, 7), (160, 441), (441, 160), (7, 5)]
INTERPOLATED = [(8000, 8001), (8000, 44101), (7999, 8000), (47999, 8000), (251, 8000), (8000, 251)]


def bank(up: int, down: int, num_zeros: int = 32, beta: float = 8.5) -> np.ndarray:
    return filters.polyphase_bank(up, down, num_zeros, 0.9125, beta)


def prototype(up: int, down: int, beta: float) -> np.ndarray:
    """The filter that the bank was cut from, in float64: its taps at each tick, in order."""
    rows, planes, taps = bank(up, down, beta=beta).shape
    by_time = bank(up, down, beta=beta).transpose(0, 2, 1).reshape(rows, planes * taps)
    return by_time[:, ::-1].T.reshape(-1).astype(float)


@pytest.mark.parametrize("num_zeros", [1, 32, 192])
@pytest.mark.parametrize(("up", "down"), RATIOS + INTERPOLATED)
def test_every_phase_has_unit_gain_at_dc(up: int, down: int, num_zeros: int) -> None:
    # float32 rounds each tap by at most 2**-25 of it.
    sums = bank(up, down, num_zeros).sum(axis=(1, 2), dtype=float)
    np.testing.assert_allclose(sums, 1, atol=2e-6)


@pytest.mark.parametrize("beta", [0, 8.5])
@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_the_phase_is_linear_and_the_delay_32_periods_of_the_lower_rate(
    up: int, down: int, beta: float
) -> None:
    taps = np.append(prototype(up, down, beta), 0)
    centre = 32 * max(up, down)
    left, right = taps[centre::-1], taps[centre : 2 * centre + 1]
    # Each phase is scaled to unit gain on its own, by less than the stop band: 84 dB, and where
    # beta is 0 only 21 dB.
    atol = (1e-4 if beta else 0.09) * taps.max()
    np.testing.assert_allclose(left, right, atol=atol)
    assert taps[0] == 0  # it would have no mirror image
    assert not taps[2 * centre :].any()


@pytest.mark.parametrize(("up", "down"), RATIOS + INTERPOLATED)
@pytest.mark.parametrize("num_zeros", [1, 32, 192])
def test_its_shape_is_what_the_loops_take_and_its_size_is_bounded(
    up: int, down: int, num_zeros: int
) -> None:
    phases, planes, taps = filters.bank_shape(up, down, num_zeros)
    interpolated = phases < up
    assert bank(up, down, num_zeros).shape == (phases + interpolated, planes, taps)
    assert planes == (down if up == 1 and down <= 6 else 1)
    assert taps % 16 == 0
    assert 0 <= planes * taps - 2 * num_zeros * max(up, down) / up < 16 * planes
    assert bank(up, down, num_zeros).nbytes < 400_000  # so 8 are no more than 3 MiB
    if num_zeros == 32:
        assert interpolated == ((up, down) in INTERPOLATED)


@pytest.mark.parametrize(("up", "down"), INTERPOLATED)
def test_the_row_after_the_last_is_the_first_one_a_sample_later(up: int, down: int) -> None:
    rows = bank(up, down)[:, 0]
    # But for their gains, which differ by less than the stop band's 84 dB.
    np.testing.assert_allclose(rows[-1, 1:], rows[0, :-1], atol=1e-4 * rows.max())


@pytest.mark.parametrize("rolloff", [1e-9, 0.5, 1])
@pytest.mark.parametrize("beta", [0, 8.5, 700])
@pytest.mark.parametrize("num_zeros", [1, 2, 192])
def test_no_sum_can_be_too_large_to_be_rounded(num_zeros: int, beta: float, rolloff: float) -> None:
    # fir.h rounds sums of up to 2**22: 128 times the loudest sample.
    for up, down in RATIOS + INTERPOLATED:
        taps = filters.polyphase_bank(up, down, num_zeros, float(rolloff), beta)
        assert np.abs(taps).sum(axis=(1, 2)).max() < 128


def test_a_bank_is_designed_once_and_cannot_be_written_to() -> None:
    designed = bank(2, 1)
    assert bank(2, 1) is designed
    with pytest.raises(ValueError, match="read-only"):
        designed[0] = 1


def test_no_more_banks_are_kept_than_take_4_mib() -> None:
    refs = [weakref.ref(bank(8000, rate, 192)) for rate in range(8001, 8101, 2)]
    kept = [ref() for ref in refs if ref() is not None]
    assert sum(rows.nbytes for rows in kept) < 4 << 20


def test_ratios_are_reduced() -> None:
    assert filters.reduced_ratio(44100, 8000) == (80, 441)
    assert filters.reduced_ratio(8000, 8000) == (1, 1)
