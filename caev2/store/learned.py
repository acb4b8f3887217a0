"""What a target's codec has learned, on disk: its tables as zarr arrays, and how faithful it is.

The folder appears in one move, so it is there whole or not at all, and of several writers that calibrate at one moment
the first one's tables are everybody's. The digest of the tables is part of the store's spec.
"""

import contextlib
import errno
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np

from caev2.errors import StoreCorrupt
from caev2.store.codecs.codec import Tables
from caev2.store.codecs.quality import Quality, quality_of_json
from caev2.store.codecs.tables import little_endian, tables_digest
from caev2.store.disk import flush_file, flush_folder
from caev2.store.files.shard import CRC_BYTES, crc32c, seal_chunk
from caev2.store.files.zarr_metadata import group, whole
from caev2.store.layout import codec_path
from caev2.store.manifest import Manifest
from caev2.store.remote.paths import StorePath, forget

QUALITY = "quality.json"


def files_of_codec(tables: Tables, quality: Quality | None) -> dict[str, bytes]:
    """The files of the folder, by path in it."""
    files = {"zarr.json": group()}
    for name, table in tables.items():
        files[f"{name}/zarr.json"] = whole(table.shape, np.dtype(table.dtype).newbyteorder("=").name)
        files["/".join([name, "c", *("0" for _ in table.shape)])] = seal_chunk(little_endian(table).tobytes())
    if quality is not None:
        files[QUALITY] = quality.to_json().encode()
    return files


def create_learned(store: Path, target: str, tables: Tables, quality: Quality | None, scratch: Path) -> None:
    """Write what a codec has learned, unless another writer has done so, be it at the same moment.

    Args:
        store: Folder of the store.
        target: Name of the target.
        tables: Of its codec.
        quality: Measured on images that did not calibrate it; none: there were none.
        scratch: A folder on the same disk.
    """
    folder, final = scratch / f"codec-{target}", store / codec_path(target)
    try:
        for path, data in files_of_codec(tables, quality).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("xb") as file:
                file.write(data)
                file.flush()
                flush_file(file.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(folder, final)  # noqa: PTH104 - refuses a folder that holds something
        except OSError as problem:
            if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        flush_folder(final.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_learned(store: Path, target: str) -> bool:
    """Whether a target's tables are there."""
    return (store / codec_path(target)).is_dir()


def learned_files(store: StorePath, manifest: Manifest) -> list[str]:
    """The files of all calibrated targets, by path in the store."""
    folders = [store / codec_path(name) for name, target in manifest.spec.targets.items() if target.tables]
    return sorted(
        path.relative_to(store).as_posix() for folder in folders for path in folder.rglob("*") if path.is_file()
    )


def read_tables(store: StorePath, target: str, digest: str | None = None) -> dict[str, np.ndarray]:
    """The tables of a target's codec.

    Args:
        store: Folder of the store.
        target: Name of the target.
        digest: What they must add up to; none: whatever is there.

    Raises:
        StoreCorrupt: They are missing, damaged, or others.
    """
    folder = store / codec_path(target)
    try:
        names = sorted(path.parent.name for path in folder.glob("*/zarr.json"))
        tables = {name: _read_array(folder / name) for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise StoreCorrupt(f"{folder} is damaged: {problem}. {_RESTORE}{forget(folder)}") from None
    if digest is not None and (found := tables_digest(tables)) != digest:
        raise StoreCorrupt(
            f"{folder} holds other tables: their digest is {found}, {digest} was written. {_RESTORE}{forget(folder)}"
        )
    return tables


_RESTORE = "Restore the folder from a copy: without these very tables no row can be decoded."


def _read_array(folder: StorePath) -> np.ndarray:
    described = json.loads((folder / "zarr.json").read_bytes())
    shape, dtype = tuple(described["shape"]), np.dtype(described["data_type"]).newbyteorder("<")
    data = folder.joinpath("c", *("0" for _ in shape)).read_bytes()
    content, checksum = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if len(content) != math.prod(shape) * dtype.itemsize or crc32c(content).to_bytes(CRC_BYTES, "little") != checksum:
        raise ValueError(f"the chunk of {folder.name} is not what was written")
    return np.frombuffer(content, dtype).reshape(shape)


def read_quality(store: StorePath, target: str) -> Quality | None:
    """How faithful a target's codec is; none: it was not measured.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    with contextlib.suppress(FileNotFoundError):
        return quality_of_json((store / codec_path(target) / QUALITY).read_bytes())
    return None
