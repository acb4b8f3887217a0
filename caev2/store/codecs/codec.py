"""What every codec is: fitted to tables, rows to codes and norms, codes and norms to rows.

A codec without tables of its own decodes by a cast. All others decode by one rule, whose parts are a `DecodePlan`:

    latent = norm · (scale[kind] · lookup(codes) @ rotation + mean[kind])

where kind is 0 for the class token and 1 for patches: their means point in different directions. `rotation` has one
line per coded channel and one column per channel of the teacher, so decoding always ends in the teacher's basis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8

Tables = Mapping[str, np.ndarray]
"""What a codec learned from calibration rows, by name; stored beside the codes."""

NORM_BYTES = 2
"""Of a token's norm, float16 in little-endian order."""

CLASS, PATCH = 0, 1
"""The kinds of tokens, and the first axis of `mean` and `scale`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowType:
    """What one row is on disk."""

    dtype: str
    """Of the codes."""
    shape: tuple[int, int]
    """Of the codes: tokens, and numbers per token."""
    has_norms: bool
    """Whether a float16 norm per token is stored beside them."""

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Of a row as it lies on disk: the two bytes of a token's norm follow its codes."""
        tokens, numbers = self.shape
        return tokens, numbers + (NORM_BYTES if self.has_norms else 0)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row, codes and norms together."""
        tokens, numbers = self.stored_shape
        return tokens * numbers * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as they are stored."""

    codes: Float16[np.ndarray, "row token width"] | UInt8[np.ndarray, "row token byte"]
    norms: Float16[np.ndarray, "row token"] | None
    """None where the codec does not normalise."""

    def stored(self) -> Float16[np.ndarray, "row token width"] | UInt8[np.ndarray, "row token byte"]:
        """The rows as they lie on disk, each token's norm behind its codes."""
        if self.norms is None:
            return self.codes
        norms = np.ascontiguousarray(self.norms, dtype="<f2")[..., None].view(np.uint8)
        return np.concatenate([self.codes, norms], axis=-1)


def encoded_of(stored: Float16[np.ndarray, "row token width"] | UInt8[np.ndarray, "row token byte"]) -> Encoded:
    """Codes and norms of rows as they lie on disk; bytes have norms, numbers have none."""
    if stored.dtype != np.uint8:
        return Encoded(stored, None)
    norms = np.ascontiguousarray(stored[..., -NORM_BYTES:]).view("<f2")[..., 0]
    return Encoded(stored[..., :-NORM_BYTES], norms)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a token's bytes that are looked up alike: byte to one or several coded channels."""

    start: int
    stop: int
    """The bytes `start` .. `stop` − 1."""
    values: Float32[np.ndarray, "place 256 channel"]
    """What a byte means; one place if it means the same at every place of the run."""

    @property
    def offsets(self) -> np.ndarray:
        """What to add to each byte of the run so that it points into `flat_values`; int32."""
        places = np.arange(self.stop - self.start, dtype=np.int32) if len(self.values) > 1 else np.zeros(1, np.int32)
        return places * np.int32(256)

    @property
    def flat_values(self) -> Float32[np.ndarray, "entry channel"]:
        """The table with the places one below the other."""
        return self.values.reshape(-1, self.values.shape[-1])

    def look_up(self, codes: UInt8[np.ndarray, "row token byte"]) -> Float32[np.ndarray, "row token channel"]:
        """The values of this run's bytes."""
        entries = codes[..., self.start : self.stop] + self.offsets
        return self.flat_values[entries].reshape(*codes.shape[:-1], (self.stop - self.start) * self.values.shape[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """Everything that decoding needs, whatever the codec."""

    segments: tuple[Segment, ...]
    scale: Float32[np.ndarray, "2 coded"]
    rotation: Float32[np.ndarray, "coded width"] | None
    """None: the coded channels are the teacher's."""
    mean: Float32[np.ndarray, "2 width"]

    def values(self, codes: UInt8[np.ndarray, "row token byte"]) -> Float32[np.ndarray, "row token coded"]:
        """Decoded channels before the rotation: exact, so that every reader gets the same bits."""
        found = [segment.look_up(codes) for segment in self.segments]
        values = found[0] if len(found) == 1 else np.concatenate(found, axis=-1)
        values *= per_token(self.scale, codes.shape[1])
        return values

    def decode(
        self, codes: UInt8[np.ndarray, "row token byte"], norms: Float16[np.ndarray, "row token"]
    ) -> Float32[np.ndarray, "row token width"]:
        """Stored rows as latents."""
        values = self.values(codes)
        latents = values if self.rotation is None else values @ self.rotation
        latents += per_token(self.mean, codes.shape[1])
        latents *= norms.astype(np.float32)[..., None]
        return latents

    def decode_stored(self, rows: UInt8[np.ndarray, "row token byte"]) -> Float32[np.ndarray, "row token width"]:
        """Rows as they lie on disk as latents."""
        encoded = encoded_of(rows)
        assert encoded.norms is not None
        return self.decode(encoded.codes, encoded.norms)


def per_token(by_kind: Float32[np.ndarray, "2 channel"], tokens: int) -> Float32[np.ndarray, "token channel"]:
    """The class token's line once, the patches' line for every other token."""
    return by_kind[np.minimum(np.arange(tokens), PATCH)]


@runtime_checkable  # so that the tests may check it as a type
class Codec(Protocol):
    """A way to store rows; its fields are its configuration, and it has no other state."""

    @property
    def name(self) -> str:
        """The name that `catalog.codec_named` finds it by."""
        ...

    @property
    def learns(self) -> bool:
        """Whether it has tables, and has to be fitted before it encodes."""
        ...

    def row_type(self, tokens: int, width: int) -> RowType:
        """What one row is on disk; known before the codec is fitted."""
        ...

    def fit(self, rows: Float[np.ndarray, "row token width"]) -> dict[str, np.ndarray]:
        """Learn the tables.

        Args:
            rows: Calibration rows in the teacher's basis, class token first, float16 or float32 (may be a memory
                map). They are read in pieces, always the same ones.

        Raises:
            StoreError: A latent cannot be stored: it is not finite, or its norm is beyond float16.
        """
        ...

    def encode(self, rows: Float[np.ndarray, "row token width"], tables: Tables) -> Encoded:
        """Rows as they are stored.

        Raises:
            StoreError: A latent cannot be stored: it is not finite, or its norm is beyond float16.
            StoreCorrupt: The tables are not this codec's.
        """
        ...

    def plan(self, tables: Tables) -> DecodePlan | None:
        """How to decode; None where codes are the latents themselves.

        Raises:
            StoreCorrupt: The tables are not this codec's.
        """
        ...


def decode(codec: Codec, encoded: Encoded, tables: Tables) -> Float32[np.ndarray, "row token width"]:
    """Stored rows as latents in the teacher's basis: the reference that every other decoder is compared with."""
    plan = codec.plan(tables)
    if plan is None:
        return encoded.codes.astype(np.float32)
    assert encoded.norms is not None, f"{codec.name} stores norms"
    return plan.decode(encoded.codes, encoded.norms)
