"""The filter's design: what its polyphase bank promises whatever the rates."""

import numpy as np
import pytest

from pipecat_twilio import filters

RATIOS = [(2, 1), (1, 2), (3, 1), (1, 3), (1, 6), (160, 441), (441, 160), (7, 5)]


def bank(up: int, down: int) -> np.ndarray:
    return filters.polyphase_bank(up, down, 32, 0.9125, 8.5)


def prototype(up: int, down: int) -> np.ndarray:
    """The filter that the bank was cut from, in float64."""
    by_phase = bank(up, down)[np.argsort(np.arange(up) * down % up)]
    return by_phase[:, ::-1].T.reshape(-1).astype(float)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_every_phase_has_unit_gain_at_dc(up: int, down: int) -> None:
    # float32 taps of at most 1, up to 384 of them: rounding adds up to less than 384 * 2**-25.
    np.testing.assert_allclose(bank(up, down).sum(axis=1, dtype=float), 1, atol=1.2e-5)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_the_phase_is_linear_and_the_delay_32_periods_of_the_lower_rate(up: int, down: int) -> None:
    taps = prototype(up, down)
    centre = 32 * max(up, down)
    left, right = taps[centre:0:-1], taps[centre : 2 * centre]
    # Each phase is scaled to unit gain on its own, by less than the stop band's 84 dB.
    np.testing.assert_allclose(left, right, atol=1e-4 * taps.max())
    assert not taps[2 * centre :].any()


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_rows_are_padded_to_the_step_of_the_loop(up: int, down: int) -> None:
    rows, taps = bank(up, down).shape
    assert rows == up
    assert taps == filters.bank_taps(up, down, 32)
    assert taps % filters.TAPS_MULTIPLE == 0
    assert 0 <= taps - 64 * max(up, down) / up < filters.TAPS_MULTIPLE


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2), (3, 1), (1, 3), (6, 1), (1, 6)])
def test_the_halves_of_a_row_take_turns_in_it_and_one_is_the_sum_of_both(
    up: int, down: int
) -> None:
    halves = filters.half_filters(up, down, 32, 0.9125, 8.5)
    assert halves.shape == (up, 3, down, 32)
    for row, (first, both, second) in zip(bank(up, down), halves, strict=True):
        rounds = row.reshape(-1, down)
        np.testing.assert_array_equal(first.T, rounds[0::2])
        np.testing.assert_array_equal(second.T, rounds[1::2])
        np.testing.assert_array_equal(both, first + second)


def test_a_bank_is_designed_once_and_cannot_be_written_to() -> None:
    for design in (filters.polyphase_bank, filters.half_filters):
        designed = design(2, 1, 32, 0.9125, 8.5)
        assert design(2, 1, 32, 0.9125, 8.5) is designed
        with pytest.raises(ValueError, match="read-only"):
            designed[0] = 1


@pytest.mark.parametrize("wrong", [0, -8000, 8000.0, "8000", None, True])
def test_rates_that_are_no_positive_integers_are_named(wrong) -> None:
    with pytest.raises(ValueError, match=f"got in_rate={wrong!r} and out_rate=16000"):
        filters.reduced_ratio(wrong, 16000)
    with pytest.raises(ValueError, match=f"got in_rate=16000 and out_rate={wrong!r}"):
        filters.reduced_ratio(16000, wrong)


def test_ratios_are_reduced() -> None:
    assert filters.reduced_ratio(44100, 8000) == (80, 441)
    assert filters.reduced_ratio(8000, 8000) == (1, 1)
