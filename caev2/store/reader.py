"""Reading a store: rows straight from the shard files, each compared with the checksum kept for it.

zarr-python would return zeros for a missing shard and takes a swapped shard for sound. Here a row is returned only if
its bytes are the bytes that were written for that very view of that very image.
"""

import os
import resource
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash
from jaxtyping import Float, Float16, Int, UInt8

from caev2.errors import StoreCorrupt, StoreIncomplete, StoreMismatch
from caev2.recipe import nearest
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import DecodePlan, Tables
from caev2.store.index import index_digest, read_column
from caev2.store.layout import (
    CHECKSUM,
    INDEX,
    VIEW_FIELDS,
    FieldType,
    checksum_path,
    chunk_path,
    shard_path,
    small_arrays,
    unit_path,
)
from caev2.store.learned import read_tables
from caev2.store.manifest import Manifest, read_manifest
from caev2.store.records import read_record
from caev2.store.shard import CRC_BYTES, chunk_offset, crc32c, shard_bytes
from caev2.store.views import View

_MOST_OPEN_SHARDS = 8192  # one view of ImageNet-1k has 2,503


def open_shards() -> int:
    """How many shard files a reader keeps open: half of what the process may open, which others need too."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_OPEN_SHARDS if allowed == resource.RLIM_INFINITY else max(1, min(_MOST_OPEN_SHARDS, allowed // 2))


class Store:
    """A store of targets on a local disk.

    Args:
        path: Folder of the store.
        allow_unsealed: Read a store whose extraction has not finished; only rows of finished units can be read.

    Raises:
        StoreMismatch: There is no store.
        StoreIncomplete: It is not sealed.
        StoreCorrupt: Its manifest is damaged.
    """

    def __init__(self, path: Path | str, *, allow_unsealed: bool = False):
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        if self.manifest.state != "sealed" and not allow_unsealed:
            raise StoreIncomplete(
                f"{self.path} is not sealed: its extraction did not finish. Run the same `caev2 extract` again; it "
                "goes on where it stopped."
            )
        self._descriptors: dict[tuple[str, int, int], int] = {}
        self._blocks: dict[tuple[str, int, int], np.ndarray] = {}
        self._digests: dict[tuple[int, int], dict[str, str]] = {}
        self._index_is_sound = False
        self._tables: dict[str, Tables] = {}

    def __getstate__(self) -> dict:
        """What travels to a worker process: no open files, no cached blocks."""
        return {**self.__dict__, "_descriptors": {}, "_blocks": {}, "_digests": {}}

    def __len__(self) -> int:
        return self.manifest.images

    @property
    def views(self) -> int:
        """Views of each image."""
        return self.manifest.views

    @cached_property
    def keys(self) -> list[str]:
        """Key of each image."""
        return self._column("key")

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each image, int64; -1 where there is none."""
        return np.asarray(self._column("label"), dtype=np.int64)

    @cached_property
    def valid_images(self) -> np.ndarray:
        """Numbers of the images that have rows, int64 and ascending."""
        return np.flatnonzero(self._column("valid"))

    @cached_property
    def source_digests(self) -> list[str]:
        """The xxh3-128 of each image's file, hexadecimal."""
        return self._column("xxh3_128")

    def _column(self, name: str) -> list:
        """One column of the index, whose file is compared with its digest before the first is read."""
        if not self._index_is_sound and self.manifest.index_digest is not None:
            self._index_is_sound = index_digest(self.path) == self.manifest.index_digest
            if not self._index_is_sound:
                raise StoreCorrupt(
                    f"{self.path / INDEX} is not the file that was sealed. Delete it and run the same `caev2 extract` "
                    "again: it is written anew."
                )
        return read_column(self.path, name)

    def target(self, name: str) -> str:
        """Check that a target of this name is stored.

        Raises:
            StoreMismatch: There is none.
        """
        if name not in self.manifest.spec.targets:
            raise StoreMismatch(
                f"{self.path} has no target called {name!r}. {nearest(name, self.manifest.spec.targets)}"
            )
        return name

    def tables(self, target: str) -> Tables:
        """What a target's codec has learned; nothing for one that learns nothing.

        Raises:
            StoreIncomplete: It is not calibrated yet.
            StoreCorrupt: The tables are not those that were written.
        """
        spec = self.manifest.spec.targets[self.target(target)]
        if spec.awaits_tables:
            raise StoreIncomplete(
                f"{self.path}: codec {spec.codec!r} of target {target!r} is not calibrated yet. Run the same `caev2 "
                "extract` again; it goes on where it stopped."
            )
        if target not in self._tables:
            self._tables[target] = {} if spec.tables is None else read_tables(self.path, target, spec.tables)
        return self._tables[target]

    def decode_plan(self, target: str) -> DecodePlan | None:
        """How a target's stored rows become latents; none: they are the latents."""
        return codec_named(self.manifest.spec.targets[self.target(target)].codec).plan(self.tables(target))

    def read_rows(
        self, target: str, view: int, images: Sequence[int] | Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row token width"]:
        """Latents of one view in the teacher's basis: float16 where they are stored so, else decoded to float32.

        Args:
            target: Name of the target.
            view: Which view.
            images: Numbers of the images, in any order.

        Raises:
            StoreCorrupt: A row's bytes are not those that were written; the message names the row.
            StoreMismatch: A row is not valid: its image could not be decoded, or its view does not exist.
        """
        plan = self.decode_plan(target)
        stored = self.read_stored(target, view, images)
        return stored if plan is None else plan.decode_stored(stored)

    def read_stored(
        self, target: str, view: int, images: Sequence[int] | Int[np.ndarray, " row"]
    ) -> Float16[np.ndarray, "row token width"] | UInt8[np.ndarray, "row token byte"]:
        """Rows of one view as they lie on disk; see `read_rows`."""
        row = self.manifest.spec.targets[self.target(target)].row_type
        rows = np.empty((len(images), *row.stored_shape), dtype=np.dtype(row.dtype).newbyteorder("<"))
        for place, image in enumerate(images):
            self._read_row(target, view, int(image), rows[place])
        return rows

    def _read_row(self, target: str, view: int, image: int, row: np.ndarray) -> None:
        self._check_valid(view, image)
        block, local = divmod(image, self.manifest.spec.block_images)
        checksum = bytearray(CRC_BYTES)
        descriptor = self._shard(target, view, block)
        read = os.preadv(descriptor, [row.data.cast("B"), checksum], chunk_offset(local, row.nbytes))
        wanted = int(self._block(checksum_path(target), CHECKSUM, view, block)[local])
        if read != row.nbytes + CRC_BYTES or crc32c(row.tobytes()) != wanted:
            raise StoreCorrupt(
                f"{self.path / shard_path(target, view, block)}: row of image {image}, view {view} is damaged: its "
                f"checksum is {crc32c(row.tobytes())}, {wanted} was written. Run `caev2 store verify {self.path}`, "
                "restore the file or delete the unit's record and extract again."
            )

    def _check_valid(self, view: int, image: int) -> None:
        if not (0 <= view < self.views and 0 <= image < len(self)):
            raise StoreMismatch(
                f"{self.path} has no view {view} of image {image}: it holds {self.views} views of {len(self)} images."
            )
        if not self.view_value("valid", view, image):
            raise StoreMismatch(f"{self.path}: image {image} has no valid row; read only the images in `valid_images`.")

    def _shard(self, target: str, view: int, block: int) -> int:
        """A descriptor of a shard file of the right size; the one not used for longest makes room."""
        place = (target, view, block)
        if place in self._descriptors:
            self._descriptors[place] = self._descriptors.pop(place)  # now the youngest
        else:
            path = self.path / shard_path(target, view, block)
            expected = shard_bytes(
                len(self.manifest.images_of_block(block)),
                self.manifest.spec.block_images,
                self.manifest.spec.targets[target].row_bytes,
            )
            descriptor = _open(path)
            if (size := os.fstat(descriptor).st_size) != expected:
                os.close(descriptor)
                raise StoreCorrupt(
                    f"{path} holds {size} bytes, {expected} were written. Restore it, or delete the unit's record and "
                    "extract again."
                )
            while len(self._descriptors) >= open_shards():
                os.close(self._descriptors.pop(next(iter(self._descriptors))))
            self._descriptors[place] = descriptor
        return self._descriptors[place]

    def view(self, view: int, image: int) -> View:
        """The parameters of one view."""
        value = {name: self.view_value(name, view, image) for name in View.__dataclass_fields__}
        return View(
            box=tuple(value["box"].tolist()),
            flip=bool(value["flip"]),
            order=tuple(value["order"].tolist()),
            factors=tuple(value["factors"].tolist()),
            grey_mean=int(value["grey_mean"]),
        )

    def view_value(self, field: str, view: int, image: int):
        """One field of `layout.VIEW_FIELDS` for one view of one image."""
        block, local = divmod(image, self.manifest.spec.block_images)
        return self._block(f"views/{field}", VIEW_FIELDS[field], view, block)[local]

    def small_array(self, array: str, view: int, block: int) -> np.ndarray:
        """One view of one block of a small array, by its path (`layout.small_arrays`); compared with its digest."""
        return self._block(array, small_arrays(self.manifest)[array], view, block)

    def _block(self, array: str, field: FieldType, view: int, block: int) -> np.ndarray:
        """One view of one block of a small array; those of one view are kept at a time."""
        place = (array, view, block)
        if place not in self._blocks:
            if self._blocks and next(iter(self._blocks))[1] != view:
                self._blocks.clear()
                self._digests.clear()
            path = chunk_path(array, view, block, field)
            digest = self._recorded_digests(view, block).get(path)
            self._blocks[place] = _read_chunk(self.path / path, field, self.manifest.spec.block_images, digest)
        return self._blocks[place]

    def _recorded_digests(self, view: int, block: int) -> dict[str, str]:
        """The xxh3-128 of a view's small files, from the record of their unit.

        A file's own checksum would hold in the place of another, too.
        """
        if (view, block) not in self._digests:
            record = read_record(self.path, self.manifest, block)
            if record is None:
                raise StoreCorrupt(
                    f"{self.path / unit_path(block)} is missing: block {block} was never finished or lost. Run the "
                    "same `caev2 extract` again: it is computed anew."
                )
            self._digests[view, block] = {
                path: digest for path, (_, digest) in record.files.items() if f"/c/{view}/" in path
            }
        return self._digests[view, block]

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as problem:
        raise StoreCorrupt(
            f"{path} cannot be read: {problem.strerror}. Restore it, or delete the unit's record and extract again."
        ) from None


def _read_chunk(path: Path, field: FieldType, block_images: int, digest: str | None) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise StoreCorrupt(
            f"{path} cannot be read: {problem.strerror}. Restore it, or delete the unit's record and extract again."
        ) from None
    if xxhash.xxh3_128_hexdigest(data) != digest:
        raise StoreCorrupt(
            f"{path} is damaged, or the file of another place: its digest is not the recorded one. Run `caev2 store "
            "verify` on the store, restore the file, or delete the unit's record and extract again."
        )
    dtype = np.dtype(field.dtype).newbyteorder("<")
    return np.frombuffer(data[:-CRC_BYTES], dtype=dtype).reshape(block_images, *field.shape)
