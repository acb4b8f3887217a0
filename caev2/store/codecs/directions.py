"""Latents as norm and direction, a few hundred tokens at a time, class tokens and patches apart.

Directions are worked on as columns, [channel, token]: every operation then runs along contiguous tokens, and every sum
over channels is a sequence of additions of whole lines. Only elementwise IEEE operations are used, so norms and codes
that are made of nothing else are the same bits on every machine and for any number of threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, UInt8

from caev2.errors import StoreError
from caev2.store.codecs.codec import CLASS, PATCH, Encoded

_TOKENS_AT_ONCE = 256  # 0.5 MB of float32 at width 512: the working set stays in a core's second-level cache
NORM_LIMIT = 65520.0
"""The smallest number that float16 rounds to infinity."""

Quantise = Callable[[Float32[np.ndarray, "width token"], int], UInt8[np.ndarray, "byte token"]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one kind out of a few rows."""

    kind: int
    rows: slice
    tokens: slice
    columns: Float32[np.ndarray, "width token"]
    """Unit vectors; zeros where the norm is zero."""
    norms: Float16[np.ndarray, " token"]
    stored: Bool[np.ndarray, " token"]
    """Whether the stored norm is not zero."""


def pieces(rows: Float[np.ndarray, "row token width"]) -> Iterator[Piece]:
    """All tokens of some rows, first the class tokens, then the patches.

    A vector is divided by its norm in float32; the norm is rounded to float16 afterwards, so that a code depends on
    the direction alone. A norm that float16 rounds to zero (under 3e-8) makes the vector a zero vector.

    Raises:
        StoreError: A latent is not finite, or its norm is beyond float16.
    """
    for kind, tokens in ((CLASS, slice(0, 1)), (PATCH, slice(1, rows.shape[1]))):
        count = tokens.stop - tokens.start
        step = max(1, _TOKENS_AT_ONCE // max(1, count))
        for first in range(0, len(rows) if count else 0, step):
            chosen = slice(first, min(first + step, len(rows)))
            yield _piece(rows, kind, chosen, tokens)


def _piece(rows: np.ndarray, kind: int, chosen: slice, tokens: slice) -> Piece:
    flat = rows[chosen, tokens].reshape(-1, rows.shape[-1])
    columns = np.array(flat.T, dtype=np.float32, order="C")
    norms = column_norms(columns)
    if not (norms < NORM_LIMIT).all():
        place = int(np.flatnonzero(~(norms < NORM_LIMIT))[0])
        row, token = divmod(place, tokens.stop - tokens.start)
        _refuse(chosen.start + row, tokens.start + token, float(norms[place]))
    rounded = norms.astype(np.float16)
    stored = rounded > 0
    columns /= np.where(stored, norms, np.float32(np.inf))
    return Piece(kind, chosen, tokens, columns, rounded, stored)


def column_norms(columns: Float32[np.ndarray, "width token"]) -> Float32[np.ndarray, " token"]:
    """Euclidean norms; what is not finite stays so, and what overflows becomes infinite."""
    count = columns.shape[1]
    if count == 1:  # numpy would add up a single column pairwise, to other last bits than among others
        columns = np.repeat(columns, 2, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.add.reduce(np.square(columns), axis=0))[:count]


def _refuse(row: int, token: int, norm: float) -> None:
    raise StoreError(
        f"Row {row}, token {token} cannot be stored: the norm of its latent is {norm:g}, and float16 ends at 65504. "
        "Look at the teacher's latents of this image; a teacher in fp16 that overflows may do without in fp32."
    )


def encode_directions(rows: Float[np.ndarray, "row token width"], row_bytes: int, quantise: Quantise) -> Encoded:
    """Norms, and the codes that `quantise` makes of the directions of one kind; zero vectors get codes of zero."""
    codes = np.empty((*rows.shape[:2], row_bytes), dtype=np.uint8)
    norms = np.empty(rows.shape[:2], dtype=np.float16)
    for piece in pieces(rows):
        found = quantise(piece.columns, piece.kind)
        if not piece.stored.all():
            found[:, ~piece.stored] = 0
        place = codes[piece.rows, piece.tokens]
        place[...] = found.T.reshape(place.shape)
        norms[piece.rows, piece.tokens] = piece.norms.reshape(place.shape[:2])
    return Encoded(codes, norms)
