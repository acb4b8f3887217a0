import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caev2.store.draws import Draws
from caev2.store.streams import RowStreams

ROWS = st.lists(st.integers(0, 2**62), max_size=5)
GOLDEN = [[18295361817215427917, 565979566679856324], [2188127867277530617, 2955465323895863572]]
PARTS = st.lists(st.integers(0, 2**63) | st.text(max_size=8), max_size=4)


@given(PARTS, ROWS, st.integers(0, 70))
def test_words_are_those_of_a_stream_for_each_row(parts, rows, count):
    words = RowStreams(*parts).words(rows, count)
    assert words.shape == (len(rows), count)
    for row, some in zip(rows, words, strict=True):
        np.testing.assert_array_equal(some, Draws(*parts, row).words(count))


@given(PARTS, ROWS, st.integers(0, 200))
def test_words_read_one_by_one_are_the_same(parts, rows, count):
    for row, word in zip(rows, RowStreams(*parts).readers(np.array(rows, np.int64)), strict=True):
        draws = Draws(*parts, row)
        assert [word() for _ in range(count)] == [draws.word() for _ in range(count)]


def test_the_first_words_are_what_they_have_always_been():
    """Golden: this project's own first words, as `Draws` gave them before there were streams by rows."""
    assert RowStreams("mask", 0, 0).words([0, 1], 2).tolist() == GOLDEN
