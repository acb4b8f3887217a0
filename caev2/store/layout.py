"""Where everything lies in a store, and in which type.

STORE/
  manifest.json                       what the store holds; see `manifest`
  index.parquet                       one line an image: key, label, file, size, hash, validity
  zarr.json                           the root group
  targets/<name>/codes                [view, image, token, ...]; chunk: one row; shard: a view of a block
  targets/<name>/crc32c               [view, image] uint32: what each row's chunk must add up to
  targets/<name>/codec/               what the codec has learned: an array for each table, and quality.json
  views/<field>                       [view, image, ...]; chunk: a view of a block
  crops/data/<view>/<block>           optional: the crops of a view of a block, one after another
  crops/size, crops/crc32c            [view, image] uint32: of each crop
  tars/<view>/<block>.tar             with the layout `webdataset`, instead of codes and crops/data; see `tars`
  units/<block>.json                  the record of a finished unit: digest of each of its files
  .tmp/                               unfinished files, gone once sealed
"""

from dataclasses import dataclass

import numpy as np

from caev2.store.manifest import Manifest
from caev2.store.pixels.views import THUMBNAIL_PX

INDEX = "index.parquet"
UNITS = "units"
SCRATCH = ".tmp"


@dataclass(frozen=True, slots=True)
class FieldType:
    """Type of one number, or small array of numbers, per view of an image."""

    dtype: str
    shape: tuple[int, ...] = ()


VIEW_FIELDS = {
    "box": FieldType("int32", (4,)),
    "flip": FieldType("bool"),
    "order": FieldType("uint8", (3,)),
    "factors": FieldType("float64", (3,)),
    "grey_mean": FieldType("uint8"),
    "crop_hash": FieldType("uint64"),
    "thumbnail": FieldType("uint8", (THUMBNAIL_PX, THUMBNAIL_PX, 3)),
    "valid": FieldType("bool"),
}
"""The arrays below `views/`, in the words of `views.View`; boxes are top, left, height, width."""

CHECKSUM = FieldType("uint32")


CROPS = ""
"""What crops are called among the targets, whose names are not empty."""

CROP_SIZE, CROP_CHECKSUM = "crops/size", "crops/crc32c"
"""The arrays of the bytes of kept crops, and what they must add up to."""


def codes_path(target: str) -> str:
    """The array of a target's stored rows."""
    return f"targets/{target}/codes"


def checksum_path(target: str) -> str:
    """The array of the crc32c of a target's rows."""
    return f"targets/{target}/crc32c"


def codec_path(target: str) -> str:
    """The folder of what a target's codec has learned."""
    return f"targets/{target}/codec"


def shard_path(target: str, view: int, block: int) -> str:
    """The file of one view of one block of a target."""
    return f"{codes_path(target)}/c/{view}/{block}/0/0"


def chunk_path(array: str, view: int, block: int, field: FieldType) -> str:
    """The file of one view of one block of a small array."""
    return "/".join([array, "c", str(view), str(block), *("0" for _ in field.shape)])


def crop_path(view: int, block: int) -> str:
    """The file of the kept crops of one view of one block."""
    return f"crops/data/{view}/{block}"


def tar_path(view: int, block: int) -> str:
    """The file of one view of one block in the layout `webdataset`."""
    return f"tars/{view}/{block:06d}.tar"


def kinds_of(manifest: Manifest) -> list[str]:
    """What a valid image has at each view, in the order of a tar's members: a row of each target, then the crop."""
    return [*sorted(manifest.spec.targets), *([CROPS] if manifest.spec.crops is not None else [])]


def row_file(manifest: Manifest, kind: str, view: int, block: int) -> str:
    """The file that holds the rows of a target, or the crops, of one view of one block."""
    if manifest.layout == "webdataset":
        return tar_path(view, block)
    return crop_path(view, block) if kind == CROPS else shard_path(kind, view, block)


def unit_path(block: int) -> str:
    """The record of a unit."""
    return f"{UNITS}/{block:06d}.json"


def small_arrays(manifest: Manifest) -> dict[str, FieldType]:
    """Every array that is not a target's codes: path and type."""
    arrays = {f"views/{name}": field for name, field in VIEW_FIELDS.items()}
    if manifest.spec.crops is not None:
        arrays |= {CROP_SIZE: FieldType("uint32"), CROP_CHECKSUM: CHECKSUM}
    return arrays | {checksum_path(name): CHECKSUM for name in manifest.spec.targets}


def files_of_unit(manifest: Manifest, block: int) -> set[str]:
    """Every shard and chunk of one block."""
    shards = {row_file(manifest, kind, view, block) for kind in kinds_of(manifest) for view in range(manifest.views)}
    return shards | {
        chunk_path(array, view, block, field)
        for array, field in small_arrays(manifest).items()
        for view in range(manifest.views)
    }


def empty_block(field: FieldType, images: int) -> np.ndarray:
    """Room for one view of one block of a small array; what is not filled is zero."""
    return np.zeros((images, *field.shape), dtype=field.dtype)
