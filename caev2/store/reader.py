"""Reading a store: rows straight from the shard files, each compared with the checksum kept for it.

zarr-python would return zeros for a missing shard and takes a swapped shard for sound. Here a row is returned only if
its bytes are the bytes that were written for that very view of that very image.
"""

import functools
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float16, Int, UInt8

from caev2.errors import StoreCorrupt, StoreIncomplete, StoreMismatch
from caev2.recipe import nearest
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import DecodePlan, Tables
from caev2.store.files.shards import Shards
from caev2.store.files.small_arrays import SmallArrays
from caev2.store.files.unit_files import UnitFiles
from caev2.store.index import index_digest, read_index, read_numbers
from caev2.store.layout import INDEX, checksum_path, codes_path
from caev2.store.learned import read_tables
from caev2.store.manifest import Manifest, TargetSpec, read_manifest
from caev2.store.pixels.views import View
from caev2.store.remote.paths import RemotePath, StorePath, forget, prefetch, store_path

_REMEMBERED = 256  # views of blocks whose files were asked for last, so that not every batch does it again


def _likeness(one: TargetSpec, other: TargetSpec) -> int:
    """How much two targets of one teacher, tap and codec have in common beside that."""
    return (one.teacher == other.teacher) + (one.from_crops == other.from_crops)


class Store:
    """A store of targets, on a local disk or at a URL.

    Of a store at a URL whole files are fetched when they are first needed, and kept in a cache; see `remote`.

    Args:
        path: Folder of the store; or its URL, whose files are then kept in `remote.DEFAULT_CACHE`.
        allow_unsealed: Read a store whose extraction has not finished; only rows of finished units can be read.

    Raises:
        StoreMismatch: There is no store.
        StoreIncomplete: It is not sealed.
        StoreCorrupt: Its manifest is damaged.
        StoreUnreachable: The server of its URL does not answer.
    """

    def __init__(self, path: StorePath | str, *, allow_unsealed: bool = False):
        self.path: StorePath = store_path(path)
        self.manifest: Manifest = read_manifest(self.path)
        if self.manifest.state != "sealed" and not allow_unsealed:
            raise StoreIncomplete(
                f"{self.path} is not sealed: its extraction did not finish. Run the same `caev2 extract` again; it "
                "goes on where it stopped."
            )
        files = UnitFiles(self.path, self.manifest)
        self._small = SmallArrays(self.path, self.manifest, files)
        self._unit_files, self._begun = files, dict[tuple[int, int], None]()
        self._shards = Shards(self.path, self.manifest, self._small, files)
        self._index_is_sound = False
        self._tables: dict[str, Tables] = {}

    def __len__(self) -> int:
        return self.manifest.images

    @property
    def views(self) -> int:
        """Views of each image."""
        return self.manifest.views

    @cached_property
    def keys(self) -> list[str]:
        """Key of each image."""
        return read_index(self._sound_index(), ["key"])["key"]

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each image, int64; -1 where there is none."""
        return read_numbers(self._sound_index(), "label").astype(np.int64)

    @cached_property
    def valid_images(self) -> np.ndarray:
        """Numbers of the images that have rows, int64 and ascending."""
        return np.flatnonzero(read_numbers(self._sound_index(), "valid"))

    @cached_property
    def source_digests(self) -> list[str]:
        """The xxh3-128 of each image's file, hexadecimal."""
        return read_index(self._sound_index(), ["xxh3_128"])["xxh3_128"]

    def _sound_index(self) -> StorePath:
        """The store, whose index is compared with its digest before it is first read."""
        if not self._index_is_sound and self.manifest.index_digest is not None:
            self._index_is_sound = index_digest(self.path) == self.manifest.index_digest
            if not self._index_is_sound:
                raise StoreCorrupt(
                    f"{self.path / INDEX} is not the file that was sealed. Delete it and run the same `caev2 extract` "
                    f"again: it is written anew.{forget(self.path / INDEX)}"
                )
        return self.path

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

    def twin_of(self, target: TargetSpec) -> str:
        """The target whose tables fit another store's: of the same teacher, tap and codec.

        Raises:
            StoreMismatch: There is none.
        """
        twins = [
            name
            for name, ours in self.manifest.spec.targets.items()
            if (ours.teacher["sha256"], ours.tap, ours.codec, ours.width)
            == (target.teacher["sha256"], target.tap, target.codec, target.width)
        ]
        if twins:  # a teacher may be there at several sizes
            return max(twins, key=lambda name: _likeness(self.manifest.spec.targets[name], target))
        raise StoreMismatch(
            f"{self.path} has no tables of {target.codec} for tap {target.tap!r} of the teacher "
            f"{target.teacher['name']} (sha256 {target.teacher['sha256'][:12]}...). Give --calibration a store of the "
            "same teacher, tap and codec."
        )

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
        self, target: str, view: int, images: Sequence[int] | Int[np.ndarray, " row"], *, check: bool = True
    ) -> Float16[np.ndarray, "row token width"] | UInt8[np.ndarray, "row token byte"]:
        """Rows of one view as they lie on disk; see `read_rows`.

        Args:
            target: Name of the target.
            view: Which view.
            images: Numbers of the images, in any order.
            check: Whether each row is compared with its checksum. Without, damage is returned as data: this is for
                measuring what checking costs.
        """
        row = self.manifest.spec.targets[self.target(target)].row_type
        rows = np.empty((len(images), *row.stored_shape), dtype=np.dtype(row.dtype).newbyteorder("<"))
        self.read_into(rows, target, view, images, check=check)
        return rows

    def read_into(
        self,
        rows: Float16[np.ndarray, "row token width"] | UInt8[np.ndarray, "row token byte"],
        target: str,
        view: int,
        images: Sequence[int] | Int[np.ndarray, " row"],
        *,
        check: bool = True,
    ) -> None:
        """Fill an array with rows of one view as they lie on disk; see `read_stored`.

        Args:
            rows: Contiguous, and of the stored type.
            target: Name of the target.
            view: Which view.
            images: Numbers of the images, in any order.
            check: Whether each row is compared with its checksum.
        """
        row = self.manifest.spec.targets[self.target(target)].row_type
        numbers = np.asarray(images, dtype=np.int64)
        self._refuse_invalid(view, numbers)
        self._shards.read_rows(
            target, view, numbers, rows.view(np.uint8).reshape(len(numbers), row.row_bytes), check=check
        )

    def _refuse_invalid(self, view: int, images: Int[np.ndarray, " row"]) -> None:
        valid = self._small.values("views/valid", view, images)
        if not valid.all():
            raise StoreMismatch(
                f"{self.path}: image {images[int(valid.argmin())]} has no valid row; read only the images in "
                "`valid_images`."
            )

    @property
    def is_remote(self) -> bool:
        """Whether it lies at a URL."""
        return isinstance(self.path, RemotePath)

    def prefetch(self, targets: Sequence[str], view: int, images: Int[np.ndarray, " row"]) -> None:
        """Begin to fetch the files that hold some rows, where the store lies at a URL; returns at once.

        Args:
            targets: Whose rows; kept crops come with them.
            view: Which view.
            images: Numbers of the images.
        """
        if not isinstance(self.path, RemotePath):
            return
        for block in np.unique(images // self.manifest.spec.block_images).tolist():
            if (view, block) not in self._begun:
                prefetch(functools.partial(self._files_of, targets, view, block))
            self._begun[view, block] = None
        while len(self._begun) > _REMEMBERED:
            del self._begun[next(iter(self._begun))]

    def _files_of(self, targets: Sequence[str], view: int, block: int) -> list[tuple[RemotePath, tuple[int, str]]]:
        """The files of one view of a block that training reads."""
        others = {checksum_path(name) for name in self.manifest.spec.targets if name not in targets}
        others |= {codes_path(name) for name in self.manifest.spec.targets if name not in targets}
        others.add("views/thumbnail")  # is looked at only where pixels differ
        path = self.path
        assert isinstance(path, RemotePath), "local files need no fetching"
        return [
            (path / name, described)
            for name, described in self._unit_files.of(view, block).items()
            if not any(name.startswith(f"{other}/") for other in others)
        ]

    def read_crop(self, view: int, image: int) -> bytes:
        """The bytes that are kept of the crop of one view.

        Raises:
            StoreCorrupt: They are not those that were written.
            StoreMismatch: The store keeps no crops, or has no such view, or the image could not be decoded.
        """
        return bytes(self.read_crops(view, np.asarray([image]))[0])

    def read_crops(
        self, view: int, images: Int[np.ndarray, " image"], into: UInt8[np.ndarray, "image byte"] | None = None
    ) -> list[memoryview]:
        """The bytes that are kept of the crops of one view of some images.

        Args:
            view: Which view.
            images: Numbers of the images, in any order.
            into: Where the bytes go if each crop has as many as there is room for one, as raw crops have.

        Raises:
            StoreCorrupt: They are not those that were written.
            StoreMismatch: The store keeps no crops, or has no such view, or an image could not be decoded.
        """
        if self.manifest.spec.crops is None:
            raise StoreMismatch(f"{self.path} keeps no crops. Give --images the folder that it was extracted from.")
        self._refuse_invalid(view, images)
        return self._shards.read_crops(view, images, into)

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
        return self.view_values(field, view, [image])[0]

    def view_values(self, field: str, view: int, images: Sequence[int] | Int[np.ndarray, " image"]) -> np.ndarray:
        """One field of `layout.VIEW_FIELDS` for one view of some images."""
        return self._small.values(f"views/{field}", view, np.asarray(images, dtype=np.int64))

    def close(self) -> None:
        """Close the files."""
        self._shards.close()
