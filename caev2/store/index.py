"""`index.parquet`: one line an image, from row number to key, label, file, size and validity."""

import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caev2.errors import StoreCorrupt
from caev2.recipe import canonical
from caev2.store.disk import write_whole
from caev2.store.hashing import hash_file
from caev2.store.layout import INDEX
from caev2.store.records import ImageFacts, UnitRecord
from caev2.store.remote.paths import StorePath

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, list]
"""The content of an index, by name of column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is known of the images of a store before they are read."""

    keys: Sequence[str]
    """In order."""
    paths: Sequence[str]
    """Where each image's file lies below its source's root."""
    labels: Sequence[int]
    """Class of each, -1 where there is none."""
    offsets: Sequence[int] | None = None
    """Where each begins in its file, which others share; none: each has a file of its own."""


def digest_listing(listing: Listing, classes: Sequence[str]) -> str:
    """A sha256 of keys, labels and class names in order."""
    digest = hashlib.sha256()
    for text in (*listing.keys, "", *classes):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    digest.update(np.asarray(listing.labels, dtype="<i8").tobytes())
    return digest.hexdigest()


_TYPES = {
    "key": "string",
    "label": "int32",
    "container": "string",
    "offset": "int64",
    "height": "int32",
    "width": "int32",
    "bytes": "int64",
    "xxh3_128": "string",
    "valid": "bool",
    "reason": "string",
}


def index_columns(records: Sequence[UnitRecord], listing: Listing) -> Columns:
    """The index of a store whose units are all done."""
    facts = [image for record in records for image in record.images]
    return {
        "key": list(listing.keys),
        "label": list(listing.labels),
        "container": [_spell(path) for path in listing.paths],
        "offset": [0] * len(facts) if listing.offsets is None else list(listing.offsets),
        "height": [fact.height for fact in facts],
        "width": [fact.width for fact in facts],
        "bytes": [fact.bytes for fact in facts],
        "xxh3_128": [fact.xxh3_128 for fact in facts],
        "valid": [fact.reason is None for fact in facts],
        "reason": [fact.reason for fact in facts],
    }


def listing_of(columns: Columns) -> Listing:
    """What an index says of the images before they were read."""
    return Listing(keys=columns["key"], paths=columns["container"], labels=columns["label"], offsets=columns["offset"])


def facts_of_images(columns: Columns) -> list[ImageFacts]:
    """What an index says of the images' files."""
    named = zip(*(columns[field.name] for field in dataclasses.fields(ImageFacts)), strict=True)
    return [ImageFacts(height=h, width=w, bytes=size, xxh3_128=digest, reason=why) for h, w, size, digest, why in named]


def digest_columns(columns: Columns) -> str:
    """A sha256 over what an index says, line by line: pyarrow's version is no part of it."""
    digest = hashlib.sha256(canonical(list(columns)) + b"\n")
    for line in zip(*columns.values(), strict=True):
        digest.update(canonical(line) + b"\n")
    return digest.hexdigest()


def write_index(store: Path, columns: Columns, scratch: Path) -> None:
    """Write the index, unless it is there and says the same: another pyarrow would write other bytes."""
    with contextlib.suppress(StoreCorrupt):
        if read_index(store) == columns:
            return
    write_whole(store / INDEX, index_file(columns), scratch)


def index_file(columns: Columns) -> bytes:
    """The content of the file."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({name: pa.array(columns[name], kind) for name, kind in _TYPES.items()})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def index_digest(store: StorePath) -> str:
    """The xxh3-128 of the file, as a sealed manifest keeps it.

    Raises:
        StoreCorrupt: The index is missing or cannot be read.
    """
    try:
        return hash_file(store / INDEX)
    except OSError as problem:
        raise _damaged(store, problem.strerror or "") from None


def _damaged(store: StorePath, why: object) -> StoreCorrupt:
    return StoreCorrupt(
        f"{store / INDEX} is missing or damaged: {why}. Delete what is left of it and run the same `caev2 extract` "
        "again: it is written anew."
    )


def _spell(path: str) -> str:
    r"""A path as text; bytes that are no UTF-8 become `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_numbers(store: StorePath, name: str) -> np.ndarray:
    """One column of numbers, without an object for each.

    Raises:
        StoreCorrupt: The index is missing or damaged.
    """
    return _read(store, [name]).column(name).to_numpy()


def read_index(store: StorePath, names: Sequence[str] = tuple(_TYPES)) -> Columns:
    """Some or all columns of the index.

    Raises:
        StoreCorrupt: The index is missing or damaged.
    """
    table = _read(store, names)
    return {name: table.column(name).to_pylist() for name in names}


def _read(store: StorePath, names: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(store / INDEX, columns=list(names)).select(list(names))
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise _damaged(store, problem) from None
