"""Writing one unit: all views of one block of images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8

from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import Tables
from caev2.store.codecs.tables import little_endian
from caev2.store.disk import replace_file, write_whole, writing
from caev2.store.files.shard import crc32c, seal_chunk
from caev2.store.files.tars import TarShards
from caev2.store.files.zarr_shards import Finished, ZarrShards
from caev2.store.hashing import HashedFile
from caev2.store.index import Listing
from caev2.store.layout import (
    CROP_CHECKSUM,
    CROP_SIZE,
    CROPS,
    checksum_path,
    chunk_path,
    empty_block,
    small_arrays,
    unit_path,
)
from caev2.store.manifest import Manifest
from caev2.store.pixels.views import View, hash_crop, shrink_crop
from caev2.store.records import ImageFacts, UnitRecord, is_done


@dataclasses.dataclass(frozen=True, slots=True)
class RenderedView:
    """A view's parameters and its pixels."""

    view: View
    crop: UInt8[np.ndarray, "size size 3"]
    """What the teacher sees."""
    kept: bytes = b""
    """The crop as a store with crops keeps it."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredView:
    """One view of one image as it lies in a store."""

    fields: Mapping[str, Any]
    """The value of each of `layout.VIEW_FIELDS`."""
    rows: Mapping[str, np.ndarray]
    """Of each target, as on disk: [token, ...]."""
    crop: bytes = b""
    """As it is kept; nothing where crops are not."""


@dataclasses.dataclass(frozen=True, slots=True)
class UnitJob:
    """What a writer of units knows."""

    path: Path
    """Folder of the store."""
    scratch: Path
    """Where unfinished files lie."""
    manifest: Manifest
    listing: Listing
    tables: Mapping[str, Tables]
    """By target."""


class UnitWriter:
    """The files of one block, filled image by image in order; a context manager that leaves no file open."""

    def __init__(self, job: UnitJob, block: int):
        manifest = job.manifest
        self._job, self._block = job, block
        self._images = len(manifest.images_of_block(block))
        self._facts: list[ImageFacts] = []
        self._views_at_once = manifest.spec.teacher_batch
        self._codecs = {
            name: (codec_named(spec.codec), job.tables[name]) for name, spec in manifest.spec.targets.items()
        }
        self._small = {
            (array, view): empty_block(field, manifest.spec.block_images)
            for array, field in small_arrays(manifest).items()
            for view in range(manifest.views)
        }
        shards = TarShards if manifest.layout == "webdataset" else ZarrShards
        self._shards = [shards(job.scratch, manifest, view, block) for view in range(manifest.views)]

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for shards in self._shards:
            shards.discard()

    def add_image(
        self,
        facts: ImageFacts,
        views: Sequence[RenderedView],
        latents: Mapping[str, Float16[np.ndarray, "view token width"]],
    ) -> None:
        """Add the next image of the block.

        Args:
            facts: About its file; with a reason, the image has no valid row, and `views` and `latents` are not used.
            views: One for each view of the store.
            latents: For each target, the rows of all views.
        """
        rows = {} if facts.reason else {target: self._encode(target, latents[target]) for target in self._codecs}
        self.add_stored(
            facts,
            []
            if facts.reason
            else [
                StoredView(
                    fields_of(rendered.view, rendered.crop),
                    {target: rows[target][view] for target in rows},
                    rendered.kept,
                )
                for view, rendered in enumerate(views)
            ],
        )

    def _encode(self, target: str, latents: Float16[np.ndarray, "view token width"]) -> np.ndarray:
        """The rows as they are stored. They are made of float16 numbers, as if they had been stored so before."""
        codec, tables = self._codecs[target]
        return codec.encode(latents.astype(np.float16, copy=False), tables).stored()

    def add_stored(self, facts: ImageFacts, views: Sequence[StoredView], *, views_at_once: int | None = None) -> None:
        """Add the next image, of which everything is as it will lie on disk.

        Args:
            facts: About its file; with a reason, the image has no valid row, and `views` are not used.
            views: One for each view of the store.
            views_at_once: How many the teacher computed together; none: a whole batch.
        """
        self._views_at_once = min(self._views_at_once, views_at_once or self._views_at_once)
        number = self._job.manifest.images_of_block(self._block)[len(self._facts)]
        nothing = StoredView({}, {target: self._empty_row(target) for target in self._codecs})
        with writing(self._job.path):
            for view in range(self._job.manifest.views):
                stored = nothing if facts.reason is not None else views[view]
                for name, value in stored.fields.items():
                    self._small[f"views/{name}", view][len(self._facts)] = value
                self._shards[view].add(number, self._describe(number, view, facts), self._pieces(view, stored))
        self._facts.append(facts)

    def _empty_row(self, target: str) -> np.ndarray:
        row = self._job.manifest.spec.targets[target].row_type
        return np.zeros(row.stored_shape, dtype=row.dtype)

    def _pieces(self, view: int, stored: StoredView) -> dict[str, tuple[bytes, int]]:
        """The bytes of each kind with their crc32c, which also goes into the small arrays."""
        place, pieces = len(self._facts), {}
        for target, row in stored.rows.items():
            data = little_endian(row).tobytes()
            pieces[target] = data, crc32c(data)
            self._small[checksum_path(target), view][place] = pieces[target][1]
        if self._job.manifest.spec.crops is not None:
            pieces[CROPS] = stored.crop, crc32c(stored.crop)
            self._small[CROP_SIZE, view][place] = len(stored.crop)
            self._small[CROP_CHECKSUM, view][place] = pieces[CROPS][1]
        return pieces

    def _describe(self, number: int, view: int, facts: ImageFacts) -> dict[str, Any]:
        """What a reader of tars is told of a view, as JSON values."""
        listing = self._job.listing
        described = {
            "key": listing.keys[number],
            "label": int(listing.labels[number]),
            "image": number,
            "view": view + self._job.manifest.first_view,
            "valid": facts.reason is None,
            "reason": facts.reason,
        }
        for name in _DESCRIBED if facts.reason is None else ():
            described[name] = self._small[f"views/{name}", view][len(self._facts)].tolist()
        return described

    def finish(self) -> None:
        """Flush the files, move them to their places, write the record; unless another writer was faster."""
        assert len(self._facts) == self._images, f"{len(self._facts)} of {self._images} images were added"
        if is_done(self._job.path, self._job.manifest, self._block):
            return
        with writing(self._job.path):
            moves = self._write_small_arrays()
            for shards in self._shards:
                moves |= shards.finish()
            record = UnitRecord(
                block=self._block,
                fingerprint=self._job.manifest.spec.fingerprint(),
                source_digest=self._job.manifest.source_digest,
                files={path: described for path, (_, described) in sorted(moves.items())},
                images=tuple(self._facts),
                views_at_once=self._smaller_batch(),
            )
            for path, (temporary, _) in sorted(moves.items()):
                replace_file(temporary, self._job.path / path)
            write_whole(self._job.path / unit_path(self._block), record.to_bytes(), self._job.scratch)

    def _smaller_batch(self) -> int | None:
        return self._views_at_once if self._views_at_once < self._job.manifest.spec.teacher_batch else None

    def _write_small_arrays(self) -> Finished:
        moves, types = {}, small_arrays(self._job.manifest)
        for (array, view), values in self._small.items():
            path = chunk_path(array, view, self._block, types[array])
            file = HashedFile(self._job.scratch / path.replace("/", "-"))
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            file.write(seal_chunk(little.tobytes()))
            moves[path] = file.path, file.finish()
        return moves


_DESCRIBED = ("box", "flip", "order", "factors", "grey_mean")


def fields_of(view: View, crop: UInt8[np.ndarray, "size size 3"]) -> dict[str, Any]:
    """The value of each of `layout.VIEW_FIELDS` for a view and the pixels that the teacher saw of it."""
    values = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return values | {"crop_hash": hash_crop(crop), "thumbnail": shrink_crop(crop), "valid": True}
