"""`int8`: unit vectors, each channel on 255 even steps about its mean."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from caev2.store.codecs.codec import DecodePlan, Encoded, RowType, Segment, Tables
from caev2.store.codecs.directions import Piece, encode_directions
from caev2.store.codecs.statistics import average, centre, mean_directions, reciprocal, spread_directions
from caev2.store.codecs.tables import check_tables

_ZERO_CODE, _LAST_STEP = 128, 127
_REACHES = (3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0, 12.0, 20.0)
"""How far the steps may reach, in standard deviations: a normal channel is best at 4, a spiky one further out."""


@dataclass(frozen=True, slots=True)
class Int8Codec:
    """Tables: `mean` and `scale`, of class token and patches."""

    name: str = "int8"

    @property
    def learns(self) -> bool:
        """Its tables."""
        return True

    def row_type(self, tokens: int, width: int) -> RowType:
        """A byte a number and a norm a token."""
        return RowType(dtype="uint8", shape=(tokens, width), has_norms=True)

    def fit(self, rows: Float[np.ndarray, "row token width"]) -> dict[str, np.ndarray]:
        """Means, and for each channel the reach with the smallest error; see `codec.Codec.fit`."""
        mean = mean_directions(rows)
        return {"mean": mean, "scale": _best_steps(rows, mean)}

    def encode(self, rows: Float[np.ndarray, "row token width"], tables: Tables) -> Encoded:
        """The nearest step; what lies beyond the last one gets the last; see `codec.Codec.encode`."""
        self._check(tables)
        mean, factors = tables["mean"], reciprocal(tables["scale"])

        def quantise(columns: np.ndarray, kind: int) -> np.ndarray:
            steps = centre(columns, mean[kind])
            steps *= factors[kind][:, None]
            np.rint(steps, out=steps)
            np.clip(steps, -_LAST_STEP, _LAST_STEP, out=steps)
            steps += _ZERO_CODE
            return steps.astype(np.uint8)

        return encode_directions(rows, rows.shape[-1], quantise)

    def plan(self, tables: Tables) -> DecodePlan:
        """A byte is its distance from 128, in steps."""
        self._check(tables)
        levels = np.arange(256, dtype=np.float32) - _ZERO_CODE
        segment = Segment(0, tables["mean"].shape[1], levels[None, :, None])
        return DecodePlan(segments=(segment,), scale=tables["scale"], rotation=None, mean=tables["mean"])

    def _check(self, tables: Tables) -> None:
        check_tables(self.name, tables, {"mean": ("float32", 2), "scale": ("float32", 2)})


def _best_steps(
    rows: Float[np.ndarray, "row token width"], mean: Float32[np.ndarray, "2 width"]
) -> Float32[np.ndarray, "2 width"]:
    """The width of a step: clipping far values and coarse steps are weighed against each other, channel by channel."""
    spread = spread_directions(rows, mean)
    errors = []
    for reach in _REACHES:
        limit = spread * np.float32(reach)

        def clipped(piece: Piece, limit: np.ndarray = limit) -> np.ndarray:
            beyond = np.abs(centre(piece.columns, mean[piece.kind])) - limit[piece.kind][:, None]
            return np.square(np.maximum(beyond, 0, out=beyond))

        errors.append(average(rows, clipped, rows.shape[-1]) + np.square(limit / _LAST_STEP, dtype=np.float64) / 12)
    best = np.array(_REACHES, dtype=np.float32)[np.argmin(errors, axis=0)]
    return spread * best / np.float32(_LAST_STEP)
