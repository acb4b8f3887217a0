"""`pq`: product quantisation of unit vectors along their principal axes, 256 centroids for each group of axes.

Axes are dealt out so that the groups' variances have about equal products, which is optimal for normal variables (Ge
et al., Optimized product quantization, 2013, section 3.2).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from caev2.store.codecs.codec import PATCH, DecodePlan, Encoded, RowType, Segment, Tables
from caev2.store.codecs.directions import encode_directions, pieces
from caev2.store.codecs.klt import default_token_bytes
from caev2.store.codecs.kmeans import fit_centroids, nearest_centroids
from caev2.store.codecs.principal import principal_axes, share_of_variance
from caev2.store.codecs.statistics import centre, mean_directions, reciprocal
from caev2.store.codecs.tables import check_tables

_POINTS = 32768
"""Tokens that centroids are fitted to: 128 for each."""
_TABLES = {"mean": ("float32", 2), "scale": ("float32", 2), "rotation": ("float32", 2), "centroids": ("float32", 3)}


@dataclass(frozen=True, slots=True)
class PqCodec:
    """Tables: `mean`, `scale`, `rotation` and `centroids`; class tokens are scaled to the patches' variances.

    A byte stands for `axes` numbers, the same for every group; a group with fewer has lines of zeros in `rotation`.
    Fitting and rotating go through BLAS: codes of near ties may differ between machines.
    """

    token_bytes: int | None = None
    """Bytes of a token's codes, which is the number of groups; none: as `klt`."""

    @property
    def name(self) -> str:
        """`pq`, or `pq:BYTES`."""
        return "pq" if self.token_bytes is None else f"pq:{self.token_bytes}"

    @property
    def learns(self) -> bool:
        """Its tables."""
        return True

    def row_type(self, tokens: int, width: int) -> RowType:
        """A byte a group and a norm a token."""
        return RowType(dtype="uint8", shape=(tokens, self._groups(width)), has_norms=True)

    def _groups(self, width: int) -> int:
        return default_token_bytes(width) if self.token_bytes is None else self.token_bytes

    def fit(self, rows: Float[np.ndarray, "row token width"]) -> dict[str, np.ndarray]:
        """Axes, their groups, and the centroids of each; see `codec.Codec.fit`."""
        mean = mean_directions(rows)
        axes, variances = principal_axes(rows, mean)
        members = deal_axes(share_of_variance(variances), self._groups(rows.shape[-1]))
        exists = members >= 0
        rotation = np.where(exists[..., None], axes[members], 0).reshape(-1, rows.shape[-1]).astype(np.float32)
        spread = np.sqrt(np.where(exists, variances[:, members], 0)).reshape(2, -1).astype(np.float32)
        scale = spread * reciprocal(spread[PATCH])
        tables = {"mean": mean, "scale": scale, "rotation": rotation}
        points = _sample_points(rows, tables).reshape(-1, *members.shape)
        centroids = [fit_centroids(np.ascontiguousarray(points[:, group]), group) for group in range(len(members))]
        return {**tables, "centroids": np.stack(centroids)}

    def encode(self, rows: Float[np.ndarray, "row token width"], tables: Tables) -> Encoded:
        """The nearest centroid of each group; see `codec.Codec.encode`."""
        check_tables(self.name, tables, _TABLES)
        centroids = tables["centroids"]

        def quantise(columns: np.ndarray, kind: int) -> np.ndarray:
            values = _rotate(columns, kind, tables).reshape(len(centroids), -1, columns.shape[1])
            found = [nearest_centroids(value.T, one) for value, one in zip(values, centroids, strict=True)]
            return np.stack(found).astype(np.uint8)

        return encode_directions(rows, len(centroids), quantise)

    def plan(self, tables: Tables) -> DecodePlan:
        """A byte means another centroid in every group; see `codec.Codec.plan`."""
        check_tables(self.name, tables, _TABLES)
        segment = Segment(0, len(tables["centroids"]), tables["centroids"])
        return DecodePlan(segments=(segment,), scale=tables["scale"], rotation=tables["rotation"], mean=tables["mean"])


def _rotate(columns: Float32[np.ndarray, "width token"], kind: int, tables: Tables) -> np.ndarray:
    values = tables["rotation"] @ centre(columns, tables["mean"][kind])
    values *= reciprocal(tables["scale"][kind])[:, None]
    return values


def _sample_points(rows: Float[np.ndarray, "row token width"], tables: Tables) -> Float32[np.ndarray, "point coded"]:
    """Evenly chosen patches, rotated; class tokens if there are no patches."""
    kind = PATCH if rows.shape[1] > 1 else 0
    stride = max(1, len(rows) * max(1, rows.shape[1] - 1) // _POINTS)
    chosen = [
        _rotate(piece.columns[:, piece.stored], kind, tables).T[::stride]
        for piece in pieces(rows)
        if piece.kind == kind
    ]
    return np.concatenate(chosen)[:_POINTS]


def deal_axes(shares: Float64[np.ndarray, " axis"], groups: int) -> Int[np.ndarray, "group member"]:
    """The axes of each group, -1 where a group has one less than others: the largest first, to whom has least.

    "Least" is the product of the variances dealt so far, each taken relative to the smallest.
    """
    size = -(-len(shares) // groups)
    full = len(shares) - (size - 1) * groups  # so many groups hold `size` axes, the others one less
    floor = max(float(shares.max()) * 1e-9, np.finfo(float).tiny)
    logs = np.log(np.maximum(shares, floor) / floor) + 1e-9
    members = np.full((groups, size), -1)
    sums, counts = np.zeros(groups), np.zeros(groups, dtype=int)
    for axis in np.argsort(-shares, kind="stable"):
        open_full = np.count_nonzero(counts == size) < full
        closed = counts >= (size if open_full else size - 1)
        group = int(np.where(closed, np.inf, sums).argmin())
        members[group, counts[group]] = axis
        sums[group] += logs[axis]
        counts[group] += 1
    return members
