"""`klt`: the principal axes of unit vectors, each with 8, 4, 2, 1 or no bits, so that a byte buys most.

Reverse water-filling over the distortions of the Lloyd-Max levels: bits go, one step after another, to the axis where
they take most error away, until the bytes of a token are used up.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from caev2.store.codecs.codec import DecodePlan, Encoded, RowType, Segment, Tables
from caev2.store.codecs.directions import encode_directions
from caev2.store.codecs.gaussian import distortion, lloyd_max_levels, nearest_levels
from caev2.store.codecs.packing import byte_values, pack_columns, packed_bytes
from caev2.store.codecs.principal import principal_axes, share_of_variance
from caev2.store.codecs.statistics import centre, mean_directions, reciprocal
from caev2.store.codecs.tables import check_tables

GROUPS = (8, 4, 2, 1)
"""Bits of a group's codes; groups follow one another in a token's bytes in this order."""
_TABLES = {
    "mean": ("float32", 2),
    "scale": ("float32", 2),
    "rotation": ("float32", 2),
    "group_bytes": ("int32", 1),
    **{f"levels{bits}": ("float32", 1) for bits in GROUPS},
}


def default_token_bytes(width: int) -> int:
    """124 bytes at width 512: a row of 197 tokens with norms then takes 24,822."""
    return max(1, width * 31 // 128)


@dataclass(frozen=True, slots=True)
class KltCodec:
    """Tables: `mean`, `scale`, `rotation`, the bytes of each group, and the levels of 8, 4, 2 and 1 bits.

    `rotation` has a line for every code that the bytes have room for; a code beyond the last axis of its group has
    scale 0 and a line of zeros. Rotating goes through BLAS: codes next to a threshold may differ between machines.
    """

    token_bytes: int | None = None
    """Bytes of a token's codes; none: `default_token_bytes`."""

    @property
    def name(self) -> str:
        """`klt`, or `klt:BYTES`."""
        return "klt" if self.token_bytes is None else f"klt:{self.token_bytes}"

    @property
    def learns(self) -> bool:
        """Its tables."""
        return True

    def row_type(self, tokens: int, width: int) -> RowType:
        """The bytes asked for, even if fewer would do, and a norm a token."""
        return RowType(dtype="uint8", shape=(tokens, self._bytes(width)), has_norms=True)

    def _bytes(self, width: int) -> int:
        return default_token_bytes(width) if self.token_bytes is None else self.token_bytes

    def fit(self, rows: Float[np.ndarray, "row token width"]) -> dict[str, np.ndarray]:
        """Axes, the bits of each, and scales; see `codec.Codec.fit`."""
        mean = mean_directions(rows)
        axes, variances = principal_axes(rows, mean)
        bits = allocate_bits(share_of_variance(variances), self._bytes(rows.shape[-1]))
        groups = [np.flatnonzero(bits == group) for group in GROUPS]
        sizes = [packed_bytes(len(group), width) for group, width in zip(groups, GROUPS, strict=True)]
        return {
            "mean": mean,
            "scale": _fill_groups(np.sqrt(variances).T, groups, sizes).T.copy(),
            "rotation": _fill_groups(axes, groups, sizes),
            "group_bytes": np.array(sizes, dtype=np.int32),
            **{f"levels{width}": lloyd_max_levels(width).copy() for width in GROUPS},
        }

    def encode(self, rows: Float[np.ndarray, "row token width"], tables: Tables) -> Encoded:
        """The nearest levels along each axis; see `codec.Codec.encode`."""
        check_tables(self.name, tables, _TABLES)
        mean, factors, rotation = tables["mean"], reciprocal(tables["scale"]), tables["rotation"]
        row_bytes, spans = self._bytes(rows.shape[-1]), list(_spans(tables["group_bytes"]))

        def quantise(columns: np.ndarray, kind: int) -> np.ndarray:
            values = rotation @ centre(columns, mean[kind])
            values *= factors[kind][:, None]
            packed = np.zeros((row_bytes, columns.shape[1]), dtype=np.uint8)
            for bits, stored, coded in spans:
                packed[stored] = pack_columns(nearest_levels(values[coded], bits), bits)
            return packed

        return encode_directions(rows, row_bytes, quantise)

    def plan(self, tables: Tables) -> DecodePlan:
        """One lookup a group; see `codec.Codec.plan`."""
        check_tables(self.name, tables, _TABLES)
        segments = tuple(
            Segment(stored.start, stored.stop, byte_values(tables[f"levels{bits}"], bits))
            for bits, stored, _ in _spans(tables["group_bytes"])
        )
        return DecodePlan(segments=segments, scale=tables["scale"], rotation=tables["rotation"], mean=tables["mean"])


def _spans(group_bytes: Int[np.ndarray, " group"]):
    """Of each group: its bits, its bytes in a token, its lines in `rotation`."""
    stored = coded = 0
    for bits, count in zip(GROUPS, group_bytes.tolist(), strict=True):
        codes = count * 8 // bits
        yield bits, slice(stored, stored + count), slice(coded, coded + codes)
        stored, coded = stored + count, coded + codes


def _fill_groups(
    lines: Float64[np.ndarray, "axis number"], groups: list[np.ndarray], sizes: list[int]
) -> Float32[np.ndarray, "coded number"]:
    """The lines of each group's axes, then zeros up to the last code of its last byte."""
    filled = []
    for chosen, size, bits in zip(groups, sizes, GROUPS, strict=True):
        missing = size * 8 // bits - len(chosen)
        filled.append(np.pad(lines[chosen], ((0, missing), (0, 0))))
    return np.concatenate(filled).astype(np.float32)


def allocate_bits(shares: Float64[np.ndarray, " axis"], token_bytes: int) -> Int[np.ndarray, " axis"]:
    """Bits of each axis: 0, 1, 2, 4 or 8, so that the expected error is smallest within the bytes.

    Each step up has a gain per bit; gains fall from step to step, so the best steps are taken first. Groups end at
    whole bytes: a token of a few bytes may be served badly, one of 31 and more is within some percent of the best.
    """
    steps = (0, *reversed(GROUPS))
    extra = np.diff(steps)
    gains = -np.diff([distortion(bits) for bits in steps]) / extra
    value = shares[:, None] * gains
    order = np.argsort(-value, axis=None, kind="stable")
    order = order[value.reshape(-1)[order] > 0]
    spent = np.cumsum(np.tile(extra, len(shares))[order])
    for limit in range(8 * token_bytes, -1, -1):
        taken = np.bincount(order[spent <= limit] // len(extra), minlength=len(shares))
        bits = np.array(steps)[taken]
        if sum(packed_bytes(int(np.count_nonzero(bits == group)), group) for group in GROUPS) <= token_bytes:
            return bits
    raise AssertionError("no bits at all fit into any number of bytes")
