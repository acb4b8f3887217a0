"""`lloyd4`: unit vectors less their mean, rotated, each channel scaled to variance 1 and put on 16 normal levels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from caev2.store.codecs.codec import DecodePlan, Encoded, RowType, Segment, Tables
from caev2.store.codecs.directions import encode_directions
from caev2.store.codecs.gaussian import lloyd_max_levels, nearest_levels
from caev2.store.codecs.packing import byte_values, pack_columns, packed_bytes
from caev2.store.codecs.rotation import rotate_columns, rotation_matrix
from caev2.store.codecs.statistics import centre, mean_directions, reciprocal, spread_directions
from caev2.store.codecs.tables import check_tables

_BITS = 4
_TABLES = {"mean": ("float32", 2), "scale": ("float32", 2), "rotation": ("float32", 2), "levels": ("float32", 1)}


@dataclass(frozen=True, slots=True)
class Lloyd4Codec:
    """Tables: `mean` and `scale` of class token and patches; `rotation` and the 16 `levels`, which are fixed."""

    name: str = "lloyd4"

    @property
    def learns(self) -> bool:
        """Its tables."""
        return True

    def row_type(self, tokens: int, width: int) -> RowType:
        """Channel 2j in the low bits of byte j, channel 2j+1 in the high ones, and a norm a token."""
        return RowType(dtype="uint8", shape=(tokens, packed_bytes(width, _BITS)), has_norms=True)

    def fit(self, rows: Float[np.ndarray, "row token width"]) -> dict[str, np.ndarray]:
        """Means, and scales after the rotation; see `codec.Codec.fit`."""
        mean = mean_directions(rows)
        return {
            "mean": mean,
            "scale": spread_directions(rows, mean, rotate_columns),
            "rotation": rotation_matrix(rows.shape[-1]).copy(),
            "levels": lloyd_max_levels(_BITS).copy(),
        }

    def encode(self, rows: Float[np.ndarray, "row token width"], tables: Tables) -> Encoded:
        """The nearest levels; see `codec.Codec.encode`."""
        check_tables(self.name, tables, _TABLES)
        mean, factors = tables["mean"], reciprocal(tables["scale"])

        def quantise(columns: np.ndarray, kind: int) -> np.ndarray:
            rotated = rotate_columns(centre(columns, mean[kind]))
            rotated *= factors[kind][:, None]
            return pack_columns(nearest_levels(rotated, _BITS), _BITS)

        return encode_directions(rows, packed_bytes(rows.shape[-1], _BITS), quantise)

    def plan(self, tables: Tables) -> DecodePlan:
        """A byte is two levels; see `codec.Codec.plan`."""
        check_tables(self.name, tables, _TABLES)
        width = tables["mean"].shape[1]
        empty = width % 2  # of an odd width the last byte holds one channel, the other one counts for nothing
        segment = Segment(0, packed_bytes(width, _BITS), byte_values(tables["levels"], _BITS))
        return DecodePlan(
            segments=(segment,),
            scale=np.pad(tables["scale"], ((0, 0), (0, empty))),
            rotation=np.pad(tables["rotation"], ((0, empty), (0, 0))),
            mean=tables["mean"],
        )
