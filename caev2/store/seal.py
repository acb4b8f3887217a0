"""The root digest: one word for all the bytes of a finished store."""

import hashlib
from collections.abc import Sequence

from caev2.store.files.zarr_metadata import metadata_files
from caev2.store.hashing import hash_file
from caev2.store.index import Columns, digest_columns
from caev2.store.layout import INDEX, unit_path
from caev2.store.learned import learned_files
from caev2.store.manifest import Manifest
from caev2.store.records import UnitRecord
from caev2.store.remote.paths import StorePath


def files_of_store(manifest: Manifest) -> list[str]:
    """The files that belong to no unit: metadata of arrays, the index, the records."""
    return sorted([*metadata_files(manifest), INDEX, *(unit_path(block) for block in range(manifest.blocks))])


def root_digest(store: StorePath, manifest: Manifest, records: Sequence[UnitRecord], index: Columns) -> str:
    """A sha256 over path and digest of every file but the manifest.

    Unit files count by their recorded digests, the index by what it says: its bytes depend on pyarrow's version.
    """
    digests = {path: digest for record in records for path, (_, digest) in record.files.items()}
    named = {*files_of_store(manifest), *learned_files(store, manifest)} - {INDEX}
    digests |= {path: hash_file(store / path) for path in named}
    digests[INDEX] = digest_columns(index)
    root = hashlib.sha256()
    for path in sorted(digests):
        root.update(f"{path}\0{digests[path]}\n".encode())
    return root.hexdigest()
