import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from caev2.pretrain.student.positions import position_table


@given(grid=st.integers(1, 16), quarter=st.integers(1, 48), data=st.data())
def test_the_first_half_holds_the_row_and_the_second_the_column(grid, quarter, data):
    row, column = data.draw(st.integers(0, grid - 1)), data.draw(st.integers(0, grid - 1))
    k = data.draw(st.integers(0, quarter - 1))
    latent = position_table(grid, 4 * quarter)[0, 1 + row * grid + column]
    frequency = 10000 ** (-k / quarter)
    expected = [wave(place * frequency) for place in (row, column) for wave in (math.sin, math.cos)]
    torch.testing.assert_close(latent[k::quarter], torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_class_token_has_no_position():
    assert not position_table(14, 192)[0, 0].any()
