import numpy as np
import pytest

from caev2.pretrain.student.model import branch_rates
from caev2.pretrain.student.sizes import SIZES
from caev2.pretrain.supply.keep import drop_path_rates, keep_bits
from caev2.store.draws import Draws

DRAWS = 10_000


def test_rates_rise_linearly_from_zero():
    """The published schedule: in the encoder, and in a regressor of four blocks and of one."""
    encoder = [block * 0.1 / 11 for block in range(12) for _ in range(2)]
    assert branch_rates(SIZES["base"]) == pytest.approx([*encoder, 0, 0, 1 / 30, 1 / 30, 1 / 15, 1 / 15, 0.1, 0.1])
    assert branch_rates(SIZES["tiny"]) == pytest.approx([*encoder, 0, 0])


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_branches_are_kept_as_often_as_published(size):
    """Over 10,000 draws each branch stays within five standard deviations of its rate; the first is never dropped."""
    rates = np.array(branch_rates(SIZES[size]))
    bits = keep_bits(seed=0, epoch=1, step=2, rows=range(DRAWS), rates=rates.tolist())
    assert (np.abs(bits.mean(1) - (1 - rates)) <= 5 * np.sqrt(rates * (1 - rates) / DRAWS)).all()
    assert bits[:2].all()


def test_branches_and_rows_are_dropped_independently():
    bits = keep_bits(0, 0, 0, range(DRAWS), drop_path_rates(3, 0.5)[2:]).astype(float)
    off_diagonal = np.corrcoef(bits)[~np.eye(4, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(DRAWS)
    shifted = np.corrcoef(bits[0, 1:], bits[0, :-1])[0, 1]
    assert abs(shifted) < 5 / np.sqrt(DRAWS)


def test_bits_depend_on_their_seed_epoch_step_and_row_alone():
    rates = [0.5] * 64
    together = keep_bits(1, 2, 3, np.array([4, 5, 6]), rates)
    assert np.array_equal(together[:, 1], keep_bits(1, 2, 3, [5], rates)[:, 0])
    for other in ((0, 2, 3, [5]), (1, 0, 3, [5]), (1, 2, 0, [5]), (1, 2, 3, [6])):
        assert not np.array_equal(keep_bits(*other, rates)[:, 0], together[:, 1])


def test_bits_of_a_batch_are_those_drawn_row_by_row():
    rates = np.array(drop_path_rates(16, 0.3))
    rows = [0, 5, 2**40]
    bits = keep_bits(1, 2, 3, rows, rates.tolist())
    for row, column in zip(rows, bits.T, strict=True):
        draws = Draws("drop path", 1, 2, 3, row)
        assert column.tolist() == [draws.uniform() >= rate for rate in rates]
    assert keep_bits(1, 2, 3, [], rates.tolist()).shape == (32, 0)
