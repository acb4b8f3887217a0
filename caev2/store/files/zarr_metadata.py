"""The `zarr.json` files of a store, as the zarr v3 specification has them.

They are written here, and not by zarr-python, so that a store's bytes do not depend on a library's version. Chunks are
uncompressed and followed by their crc32c; arrays begin [view, image, ...].
"""

import json
from typing import Any

from caev2.store.layout import codes_path, small_arrays
from caev2.store.manifest import Manifest

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C = {"name": "crc32c"}


def array_metadata(manifest: Manifest) -> dict[str, bytes]:
    """`zarr.json` of the root group, of every folder between, and of every array: path → content."""
    groups = ["", "targets", "views", *(f"targets/{name}" for name in manifest.spec.targets)]
    if manifest.spec.crops is not None:
        groups.append("crops")
    files = {path: group() for path in groups}
    for target in manifest.spec.targets:
        row = manifest.spec.targets[target].row_type
        shape = (manifest.views, manifest.images, *row.stored_shape)
        if manifest.layout == "zarr":
            files[codes_path(target)] = sharded(shape, row.dtype, manifest.spec.block_images)
    for path, field in small_arrays(manifest).items():
        shape = (manifest.views, manifest.images, *field.shape)
        files[path] = chunked(shape, field.dtype, manifest.spec.block_images)
    return files


def metadata_files(manifest: Manifest) -> dict[str, bytes]:
    """The same by the path of the file."""
    return {f"{array}/zarr.json".lstrip("/"): data for array, data in array_metadata(manifest).items()}


def group() -> bytes:
    """A group."""
    return _encode({"zarr_format": 3, "node_type": "group", "attributes": {}})


def chunked(shape: tuple[int, ...], dtype: str, block_images: int) -> bytes:
    """A small array: one chunk holds one view of one block."""
    return _encode(_array(shape, dtype, (1, block_images, *shape[2:]), [_BYTES, _CRC32C]))


def whole(shape: tuple[int, ...], dtype: str) -> bytes:
    """An array in one chunk."""
    return _encode(_array(shape, dtype, shape, [_BYTES, _CRC32C]))


def sharded(shape: tuple[int, ...], dtype: str, block_images: int) -> bytes:
    """An array of rows: one chunk holds one row, one shard one view of one block."""
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, 1, *shape[2:]],
            "codecs": [_BYTES, _CRC32C],
            "index_codecs": [_BYTES, _CRC32C],
            "index_location": "end",
        },
    }
    return _encode(_array(shape, dtype, (1, block_images, *shape[2:]), [sharding]))


def _array(shape: tuple[int, ...], dtype: str, chunk: tuple[int, ...], codecs: list[dict[str, Any]]) -> dict[str, Any]:
    fill = {"bool": False}.get(dtype, 0.0 if dtype.startswith("float") else 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
    }


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"
