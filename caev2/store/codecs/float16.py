"""`float16`: the latents as they are, rounded."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from caev2.errors import StoreError
from caev2.store.codecs.codec import Encoded, RowType, Tables
from caev2.store.codecs.directions import NORM_LIMIT
from caev2.store.codecs.tables import check_tables


@dataclass(frozen=True, slots=True)
class Float16Codec:
    """No tables, no norms; two bytes a number."""

    name: str = "float16"

    @property
    def learns(self) -> bool:
        """There is nothing to learn."""
        return False

    def row_type(self, tokens: int, width: int) -> RowType:
        """The latents themselves."""
        return RowType(dtype="float16", shape=(tokens, width), has_norms=False)

    def fit(self, rows: Float[np.ndarray, "row token width"]) -> dict[str, np.ndarray]:
        """Nothing is learned."""
        del rows
        return {}

    def encode(self, rows: Float[np.ndarray, "row token width"], tables: Tables) -> Encoded:
        """Round to float16; see `codec.Codec.encode`."""
        check_tables(self.name, tables, {})
        if not _are_finite(rows):
            _refuse(rows)
        return Encoded(rows.astype("<f2"), None)

    def plan(self, tables: Tables) -> None:
        """Codes are the latents."""
        check_tables(self.name, tables, {})


def _are_finite(rows: Float[np.ndarray, "row token width"]) -> bool:
    """Whether all numbers are finite in float16; of float16 numbers the bits are looked at, ten times faster."""
    if rows.dtype == np.float16:
        return bool((rows.view(np.uint16) & 0x7FFF).max(initial=0) < _INFINITY)
    return bool((np.abs(rows) < np.float32(NORM_LIMIT)).all())


_INFINITY = 0x7C00


def _refuse(rows: Float[np.ndarray, "row token width"]) -> None:
    row, token, channel = (int(place) for place in np.argwhere(~(np.abs(rows) < np.float32(NORM_LIMIT)))[0])
    raise StoreError(
        f"Row {row}, token {token} cannot be stored: channel {channel} of its latent is "
        f"{float(rows[row, token, channel]):g}, and float16 ends at 65504. Look at the teacher's latents of "
        "this image; a teacher in fp16 that overflows may do without in fp32."
    )
