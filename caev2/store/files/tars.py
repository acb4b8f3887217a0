"""One view of one block as a tar that stock `webdataset` reads.

Of each image there are the members `<block>-<place>.json` (key, label, the view's parameters), then for each target
`.<target>.npy` (the row as it is stored), then, with crops, `.jpg` or `.crop.npy`. An image without a row has its
`.json` alone. Headers are plain ustar without time, owner or extension, so that bytes depend on content only; names
are digits, keys stand in the `.json`, where every character is allowed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caev2.errors import StoreCorrupt
from caev2.store.files.zarr_shards import Finished
from caev2.store.hashing import HashedFile
from caev2.store.layout import CROPS, kinds_of, tar_path
from caev2.store.manifest import Manifest
from caev2.store.remote.paths import StorePath

_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)


def member_name(block: int, place: int, suffix: str) -> str:
    """The name of a member; what stands before the first dot is webdataset's `__key__`."""
    return f"{block:06d}-{place:06d}.{suffix}"


def suffix_of(manifest: Manifest, kind: str) -> str:
    """What the members of a kind end in: of a target, or of crops."""
    if kind != CROPS:
        return f"{kind}.npy"
    return "jpg" if manifest.spec.crops == "jpeg" else "crop.npy"


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of a `.npy` file, version 1.0, written here so that its bytes depend on no library."""
    kind = np.dtype(dtype).newbyteorder("<").str
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(len(text) + 11) // 64) * 64 - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def array_header(manifest: Manifest, kind: str) -> bytes:
    """What stands before the bytes of a member: the beginning of a `.npy`, or nothing before a JPEG."""
    if kind != CROPS:
        row = manifest.spec.targets[kind].row_type
        return npy_header(row.dtype, row.stored_shape)
    size = manifest.spec.views.size_px
    return b"" if manifest.spec.crops == "jpeg" else npy_header("uint8", (size, size, 3))


def member_header(name: str, size: int) -> bytes:
    """The block before a member."""
    fields = [
        name.encode().ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(247),
    ]
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


class TarShards:
    """The tar of one view of one block, filled image by image in order.

    Args:
        scratch: Where unfinished files lie.
        manifest: Of the store.
        view: Which view.
        block: Which block.
    """

    def __init__(self, scratch: Path, manifest: Manifest, view: int, block: int):
        self._manifest, self._view, self._block = manifest, view, block
        self._first = manifest.images_of_block(block).start
        self._file = HashedFile(scratch / f"{view}-{block}.tar")

    def add(self, image: int, described: Mapping[str, Any], pieces: Mapping[str, tuple[bytes, int]]) -> None:
        """Add the next image.

        Args:
            image: Its number.
            described: What its `.json` says; `valid` decides whether there is more than that.
            pieces: By kind (a target, or `CROPS`), bytes and their crc32c.
        """
        place = image - self._first
        text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._add_member(member_name(self._block, place, "json"), text)
        for kind in kinds_of(self._manifest) if described["valid"] else ():
            name = member_name(self._block, place, suffix_of(self._manifest, kind))
            self._add_member(name, array_header(self._manifest, kind) + pieces[kind][0])

    def _add_member(self, name: str, data: bytes) -> None:
        self._file.write(member_header(name, len(data)), data, bytes(-len(data) % _BLOCK_BYTES))

    def finish(self) -> Finished:
        """Flush the file."""
        self._file.write(_END)
        return {tar_path(self._view, self._block): (self._file.path, self._file.finish())}

    def discard(self) -> None:
        """Remove what was not moved to its place."""
        self._file.discard()


def find_members(
    descriptor: int, path: StorePath, manifest: Manifest, block: int, valid: np.ndarray
) -> dict[str, np.ndarray]:
    """Where the bytes of rows and crops begin in a tar: by kind, for each place of the block; 0 where there is none.

    The members are known beforehand; a name, a kind or an order of members that is not the one written is refused, so
    nothing in a tar decides what is read, or written anywhere.

    Args:
        descriptor: The tar, open.
        path: For messages.
        manifest: Of the store.
        block: Which block.
        valid: Which of its images have rows.

    Raises:
        StoreCorrupt: The tar is not what was written.
    """
    kinds = kinds_of(manifest)
    found = {kind: np.zeros(len(valid), np.int64) for kind in kinds}
    headers = {kind: len(array_header(manifest, kind)) for kind in kinds}
    position = 0
    for place, name, kind in _expected(manifest, block, valid):
        size = _member_size(os.pread(descriptor, _BLOCK_BYTES, position), name)
        if size is None:
            raise StoreCorrupt(
                f"{path} is damaged: at byte {position} there is no member {name!r}. Restore it, or delete the unit's "
                "record and extract again."
            )
        position += _BLOCK_BYTES
        if kind is not None:
            found[kind][place] = position + headers[kind]
        position += -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
    return found


def _expected(manifest: Manifest, block: int, valid: np.ndarray) -> Iterator[tuple[int, str, str | None]]:
    """Place, name and kind of every member, in order; the kind of a description is none."""
    for place, has_row in enumerate(valid):
        yield place, member_name(block, place, "json"), None
        for kind in kinds_of(manifest) if has_row else ():
            yield place, member_name(block, place, suffix_of(manifest, kind)), kind


def _member_size(header: bytes, name: str) -> int | None:
    """The size of a member; none if the header is not that of this very member."""
    try:
        size = int(header[124:135], 8)
    except ValueError:
        return None
    return size if header == member_header(name, size) else None
