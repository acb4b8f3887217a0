"""The files that hold the rows and crops of a store, read by batches."""

import itertools
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from caev2.errors import StoreCorrupt
from caev2.store.files.column import Column, Columns
from caev2.store.files.open_files import OpenFiles, Place
from caev2.store.files.pieces import pieces_of, read_pieces
from caev2.store.files.shard import CRC_BYTES, chunk_offsets
from caev2.store.files.small_arrays import SmallArrays
from caev2.store.files.tars import find_members
from caev2.store.files.unit_files import UnitFiles
from caev2.store.layout import CROP_CHECKSUM, CROP_SIZE, CROPS, FieldType, checksum_path, row_file
from caev2.store.manifest import Manifest
from caev2.store.remote.paths import RemotePath, StorePath, forget, open_file

_ALL = "*"  # beside the names of targets, none of which can be this
_OFFSET = FieldType("int64")
_RESTORE = "Restore it, or delete the unit's record and extract again."


class Shards:
    """Rows and crops by view and image, each compared with its checksum.

    Args:
        path: Folder of the store.
        manifest: Of the store.
        small: Its small arrays, which hold the checksums.
        unit_files: What the files must be.
    """

    def __init__(self, path: StorePath, manifest: Manifest, small: SmallArrays, unit_files: UnitFiles):
        self._path, self._manifest, self._small, self._unit_files = path, manifest, small, unit_files
        self._files = OpenFiles(copies=isinstance(path, RemotePath))
        self._offsets = Columns()

    def __getstate__(self) -> dict:
        """What travels to a worker process: no open files."""
        return {**self.__dict__, "_files": None, "_offsets": Columns()}

    def __setstate__(self, state: dict) -> None:
        """Begin without open files."""
        self.__dict__.update(state)
        self._files = OpenFiles(copies=isinstance(self._path, RemotePath))

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
        for first in range(0, len(images), most := self._files.most):
            some, rows = images[first : first + most], into[first : first + most]
            found = self._read(target, view, some, pieces_of(rows), check=check)
            if check:
                self._compare(target, view, some, found)

    def _read(
        self, kind: str, view: int, images: np.ndarray, pieces: Sequence[memoryview], *, check: bool
    ) -> list[int]:
        file_kind, blocks = self._file_kind(kind), (images // self._manifest.spec.block_images).tolist()
        offsets = self._places(kind, view).of(images).tolist()
        descriptors = self._files.of([(file_kind, view, block) for block in blocks], self._open)
        try:
            return read_pieces(pieces, descriptors, offsets, check=check)
        except (OSError, EOFError) as problem:
            paths = sorted({row_file(self._manifest, kind, view, block) for block in blocks})
            raise StoreCorrupt(
                f"One of {len(paths)} files from {self._path / paths[0]} on cannot be read: {problem}. Run `caev2 "
                f"store verify {self._path}` to learn which."
            ) from None

    def _compare(self, kind: str, view: int, images: np.ndarray, found: list[int]) -> None:
        is_crop = kind == CROPS
        wanted = self._small.values(CROP_CHECKSUM if is_crop else checksum_path(kind), view, images)
        damaged = np.flatnonzero(wanted != np.asarray(found, dtype=wanted.dtype))
        if len(damaged):
            place = damaged[0]
            what = f"{'the crop' if is_crop else 'row'} of image {images[place]}, view {view}"
            raise self._damage(kind, view, int(images[place]), what, found[place], int(wanted[place]))

    def _damage(self, kind: str, view: int, image: int, what: str, found: int, wanted: int) -> StoreCorrupt:
        path = self._path / row_file(self._manifest, kind, view, image // self._manifest.spec.block_images)
        return StoreCorrupt(
            f"{path}: {what} is damaged: its checksum is {found}, {wanted} was written. Run `caev2 store verify "
            f"{self._path}`, restore the file or delete the unit's record and extract again.{forget(path)}"
        )

    def read_crops(
        self, view: int, images: Int[np.ndarray, " image"], into: UInt8[np.ndarray, "image byte"] | None
    ) -> list[memoryview]:
        """The bytes that are kept of the crops of one view.

        Args:
            view: Which view.
            images: Numbers of the images.
            into: Where the bytes go, if they fill it; else they get memory of their own.

        Raises:
            StoreCorrupt: They are not those that were written.
        """
        sizes = self._small.values(CROP_SIZE, view, images).astype(np.int64)
        if into is not None and (sizes == into.shape[1]).all():
            pieces = pieces_of(into)
        else:
            memory, ends = np.empty(int(sizes.sum()), np.uint8).data, np.cumsum(sizes).tolist()
            pieces = [memory[begin:end] for begin, end in itertools.pairwise([0, *ends])]
        for first in range(0, len(images), most := self._files.most):
            some = images[first : first + most]
            found = self._read(CROPS, view, some, pieces[first : first + most], check=True)
            self._compare(CROPS, view, some, found)
        return pieces

    def _places(self, kind: str, view: int) -> Column:
        """Where the rows, or crops, of one view begin in their files."""

        def load(block: int) -> np.ndarray:
            return self._offsets_of(kind, view, block)

        images, block_images = self._manifest.images, self._manifest.spec.block_images
        known = self._offsets.get((kind, view))
        return known or self._offsets.add((kind, view), Column(images, block_images, _OFFSET, load))

    def _offsets_of(self, kind: str, view: int, block: int) -> np.ndarray:
        if self._manifest.layout == "webdataset":
            valid = self._small.of_block("views/valid", view, block)
            descriptor = self._files.of([(self._file_kind(kind), view, block)], self._open)[0]
            path = self._path / row_file(self._manifest, kind, view, block)
            return find_members(descriptor, path, self._manifest, block, valid)[kind]
        if kind != CROPS:
            images = len(self._manifest.images_of_block(block))
            return chunk_offsets(images, self._manifest.spec.targets[kind].row_bytes)
        sizes = self._small.of_block(CROP_SIZE, view, block).astype(np.int64) + CRC_BYTES
        return np.cumsum(sizes) - sizes

    def _file_kind(self, kind: str) -> str:
        """A tar holds all kinds, so it is opened but once."""
        return _ALL if self._manifest.layout == "webdataset" else kind

    def _open(self, place: Place) -> int:
        """A descriptor of a file of the right size."""
        kind, view, block = place
        name = row_file(self._manifest, kind, view, block)
        path, described = self._path / name, self._unit_files.of(view, block)[name]
        try:
            descriptor = open_file(path, described)
        except OSError as problem:
            raise StoreCorrupt(f"{path} cannot be read: {problem.strerror or problem}. {_RESTORE}") from None
        if (size := os.fstat(descriptor).st_size) != described[0]:
            os.close(descriptor)
            raise StoreCorrupt(f"{path} holds {size} bytes, {described[0]} were written. {_RESTORE}{forget(path)}")
        return descriptor

    def close(self) -> None:
        """Close the files."""
        self._files.close()
