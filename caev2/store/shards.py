"""The files that hold the rows and crops of a store, read by batches."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from caev2.errors import StoreCorrupt
from caev2.store.column import Column
from caev2.store.layout import CROP_CHECKSUM, CROP_SIZE, FieldType, checksum_path, crop_path, shard_path
from caev2.store.manifest import Manifest
from caev2.store.open_files import OpenFiles, Place, most_open
from caev2.store.pieces import read_pieces
from caev2.store.shard import CRC_BYTES, chunk_offsets, crc32c, shard_bytes
from caev2.store.small_arrays import SmallArrays

_CROPS = "/"  # beside the names of targets, none of which can be this
_OFFSET = FieldType("int64")
_RESTORE = "Restore it, or delete the unit's record and extract again."


class Shards:
    """Rows and crops by view and image, each compared with its checksum.

    Args:
        path: Folder of the store.
        manifest: Of the store.
        small: Its small arrays, which hold the checksums.
    """

    def __init__(self, path: Path, manifest: Manifest, small: SmallArrays):
        self._path, self._manifest, self._small = path, manifest, small
        self._files = OpenFiles(self._open)
        self._offsets: dict[tuple[str, int], Column] = {}

    def __getstate__(self) -> dict:
        """What travels to a worker process: no open files."""
        return {**self.__dict__, "_files": None, "_offsets": {}}

    def __setstate__(self, state: dict) -> None:
        """Begin without open files."""
        self.__dict__.update(state)
        self._files = OpenFiles(self._open)

    def read_rows(
        self,
        target: str,
        view: int,
        images: Int[np.ndarray, " row"],
        into: UInt8[np.ndarray, "row byte"],
        *,
        check: bool,
    ) -> None:
        """Fill an array with the bytes of rows.

        Raises:
            StoreCorrupt: A row's bytes are not those that were written.
        """
        for first in range(0, len(images), most := most_open()):
            some, rows = images[first : first + most], into[first : first + most]
            found = self._read(target, view, some, rows, check=check)
            if check:
                self._compare(target, view, some, rows, found)

    def _read(self, kind: str, view: int, images: np.ndarray, into: np.ndarray, *, check: bool) -> list[int]:
        blocks = (images // self._manifest.spec.block_images).tolist()
        offsets = self._places(kind, view).of(images).tolist()
        descriptors = self._files.of([(kind, view, block) for block in blocks])
        try:
            return read_pieces(into, descriptors, offsets, check=check)
        except (OSError, EOFError) as problem:
            paths = sorted({self._path_of((kind, view, block)) for block in blocks})
            raise StoreCorrupt(
                f"One of {len(paths)} files from {self._path / paths[0]} on cannot be read: {problem}. Run `caev2 "
                f"store verify {self._path}` to learn which."
            ) from None

    def _compare(self, target: str, view: int, images: np.ndarray, rows: np.ndarray, found: list[int]) -> None:
        wanted = self._small.values(checksum_path(target), view, images)
        damaged = np.flatnonzero(wanted != np.asarray(found, dtype=wanted.dtype))
        if len(damaged):
            image = int(images[damaged[0]])
            block = image // self._manifest.spec.block_images
            raise StoreCorrupt(
                f"{self._path / shard_path(target, view, block)}: row of image {image}, view {view} is damaged: its "
                f"checksum is {found[damaged[0]]}, {wanted[damaged[0]]} was written. Run `caev2 store verify "
                f"{self._path}`, restore the file or delete the unit's record and extract again."
            )

    def read_crop(self, view: int, image: int) -> bytes:
        """The bytes that are kept of the crop of one view.

        Raises:
            StoreCorrupt: They are not those that were written.
        """
        number = np.asarray([image])
        size = int(self._small.values(CROP_SIZE, view, number)[0])
        data = np.empty((1, size), np.uint8)
        self._read(_CROPS, view, number, data, check=False)
        if crc32c(data.data.cast("B")) != int(self._small.values(CROP_CHECKSUM, view, number)[0]):
            block = image // self._manifest.spec.block_images
            raise StoreCorrupt(
                f"{self._path / crop_path(view, block)}: the crop of image {image}, view {view} is damaged: its "
                f"checksum is not the one that was written. Run `caev2 store verify {self._path}`, restore the file "
                "or delete the unit's record and extract again."
            )
        return data.tobytes()

    def _places(self, kind: str, view: int) -> Column:
        """Where the rows, or crops, of one view begin in their files."""
        if (kind, view) not in self._offsets:
            self._offsets = {place: column for place, column in self._offsets.items() if place[1] == view}

            def load(block: int) -> np.ndarray:
                return self._offsets_of(kind, view, block)

            images, block_images = self._manifest.images, self._manifest.spec.block_images
            self._offsets[kind, view] = Column(images, block_images, _OFFSET, load)
        return self._offsets[kind, view]

    def _offsets_of(self, kind: str, view: int, block: int) -> np.ndarray:
        images = len(self._manifest.images_of_block(block))
        if kind != _CROPS:
            return chunk_offsets(images, self._manifest.spec.targets[kind].row_bytes)
        sizes = self._small.of_block(CROP_SIZE, view, block).astype(np.int64) + CRC_BYTES
        return np.cumsum(sizes) - sizes

    def _path_of(self, place: Place) -> str:
        kind, view, block = place
        return crop_path(view, block) if kind == _CROPS else shard_path(kind, view, block)

    def _size_of(self, place: Place) -> int:
        kind, view, block = place
        images = len(self._manifest.images_of_block(block))
        if kind != _CROPS:
            row_bytes = self._manifest.spec.targets[kind].row_bytes
            return shard_bytes(images, self._manifest.spec.block_images, row_bytes)
        return int(self._small.of_block(CROP_SIZE, view, block).sum()) + images * CRC_BYTES

    def _open(self, place: Place) -> int:
        """A descriptor of a file of the right size."""
        path, expected = self._path / self._path_of(place), self._size_of(place)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as problem:
            raise StoreCorrupt(f"{path} cannot be read: {problem.strerror}. {_RESTORE}") from None
        if (size := os.fstat(descriptor).st_size) != expected:
            os.close(descriptor)
            raise StoreCorrupt(f"{path} holds {size} bytes, {expected} were written. {_RESTORE}")
        return descriptor

    def close(self) -> None:
        """Close the files."""
        self._files.close()
