import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caev2.store.codecs.directions import pieces
from tests.store.codecs.made_up import make_rows


@given(rows=st.integers(0, 5), tokens=st.integers(1, 300))
def test_every_token_is_in_exactly_one_piece_of_its_kind(rows, tokens):
    latents = np.arange(1, rows * tokens + 1, dtype=np.float32).reshape(rows, tokens, 1)
    seen = np.zeros((rows, tokens), int)
    for piece in pieces(latents):
        seen[piece.rows, piece.tokens] += 1
        assert (piece.tokens.start == 0) == (piece.kind == 0)
        norms = latents[piece.rows, piece.tokens, 0].reshape(-1).astype(np.float16)
        assert (piece.norms == norms).all()
    assert (seen == 1).all()


def test_columns_times_norms_are_the_latents():
    rows = make_rows(0, rows=5)
    for piece in pieces(rows):
        latents = rows[piece.rows, piece.tokens].reshape(-1, rows.shape[-1])
        np.testing.assert_allclose(np.linalg.norm(piece.columns, axis=0), 1, rtol=1e-6)
        np.testing.assert_allclose(piece.columns.T * piece.norms.astype(np.float32)[:, None], latents, rtol=6e-4)


def test_the_rows_are_left_as_they_were():
    rows = make_rows(0, rows=2)
    before = rows.copy()
    list(pieces(rows))
    assert (rows == before).all()


def test_a_token_has_the_same_bits_alone_and_among_others():
    rows = np.random.default_rng(0).standard_normal((9, 17, 512)).astype(np.float16)
    together = {piece.kind: piece for piece in pieces(rows)}
    for row in range(len(rows)):
        for alone in pieces(rows[row : row + 1]):
            tokens = alone.columns.shape[1]
            there = together[alone.kind].columns[:, row * tokens : (row + 1) * tokens]
            np.testing.assert_array_equal(alone.columns, there)
