"""How many bytes and files a store takes, computed by the code that lays it out, before there is one.

What depends on the images (keys, kept JPEGs, undecodable ones) is told from a sample; everything else is exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caev2.store.codecs.codec import Tables
from caev2.store.files.shard import CRC_BYTES, shard_bytes
from caev2.store.files.tars import array_header
from caev2.store.files.zarr_metadata import metadata_files
from caev2.store.index import Listing, index_columns, index_file
from caev2.store.layout import CROPS, files_of_unit, kinds_of, small_arrays
from caev2.store.learned import files_of_codec
from caev2.store.manifest import Manifest
from caev2.store.records import ImageFacts, UnitRecord

_TAR_BLOCK_BYTES = 512
_DESCRIBED_BYTES = 260
"""Of a view's JSON in a tar, but for the key: whether it fills one block or two is all that matters."""
_INDEX_IMAGES = 20_000
"""Lines of a made-up index from which the size of a larger one is told."""
_QUALITY_BYTES = 400
_TYPICAL = ImageFacts(height=375, width=500, bytes=110_000, xxh3_128="0" * 32, reason=None)
"""An image of ImageNet's mean size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizes:
    """What a store's size owes to its images."""

    crop_bytes: float = 0.0
    """Mean of a kept crop."""
    key_bytes: float = 32.0
    """Mean of a key."""
    valid_share: float = 1.0
    """Of the images, those that can be decoded."""
    index_bytes: int = 0
    """Of `index.parquet`."""
    table_files: tuple[int, ...] = ()
    """Size of each file of what the codecs learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSizes:
    """Bytes of a store, part by part, and its files."""

    codes_bytes: int
    """Rows with their checksums and the indices of their shards."""
    crops_bytes: int
    views_bytes: int
    """The arrays that are not rows: boxes, jitter, thumbnails, hashes, checksums; in tars the descriptions as well."""
    records_bytes: int
    """Records of units, index, tables of codecs, metadata, manifest."""
    row_files: int
    """Shards or tars."""
    files: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.codes_bytes + self.crops_bytes + self.views_bytes + self.records_bytes


def store_sizes(manifest: Manifest, images: ImageSizes) -> StoreSizes:
    """What a store of this manifest will take.

    Args:
        manifest: Of the store.
        images: What its images are like.
    """
    last = manifest.blocks - 1
    full, rest = manifest.spec.block_images, len(manifest.images_of_block(last))
    parts = np.array([_unit_bytes(manifest, images, count, last) for count in (full, rest)])
    codes, crops, views, records = (round(total) for total in (parts * [[last], [1]]).sum(0).tolist())
    metadata = metadata_files(manifest)
    records += (
        sum(map(len, metadata.values())) + len(manifest.to_bytes()) + images.index_bytes + sum(images.table_files)
    )
    shards = len({*_row_files(manifest, last)})
    return StoreSizes(
        codes_bytes=codes,
        crops_bytes=crops,
        views_bytes=views,
        records_bytes=records,
        row_files=manifest.blocks * shards,
        files=manifest.blocks * (1 + len(files_of_unit(manifest, last))) + len(metadata) + len(images.table_files) + 2,
    )


def _row_files(manifest: Manifest, block: int) -> set[str]:
    small = tuple(f"{path}/" for path in small_arrays(manifest))
    return {path for path in files_of_unit(manifest, block) if not path.startswith(small)}


def _unit_bytes(manifest: Manifest, images: ImageSizes, count: int, block: int) -> tuple[float, float, float, float]:
    """Codes, crops, views and record of a block of so many images."""
    rows = (
        _tar_bytes(manifest, images, count) if manifest.layout == "webdataset" else _zarr_bytes(manifest, images, count)
    )
    codes, crops, described = (manifest.views * part for part in rows)
    small = sum(
        np.dtype(field.dtype).itemsize * math.prod(field.shape) * manifest.spec.block_images + CRC_BYTES
        for field in small_arrays(manifest).values()
    )
    return codes, crops, described + manifest.views * small, float(_record_bytes(manifest, count, block))


def _zarr_bytes(manifest: Manifest, images: ImageSizes, count: int) -> tuple[float, float, float]:
    capacity = manifest.spec.block_images
    codes = sum(shard_bytes(count, capacity, target.row_bytes) for target in manifest.spec.targets.values())
    crops = 0.0 if manifest.spec.crops is None else count * (images.valid_share * images.crop_bytes + CRC_BYTES)
    return float(codes), crops, 0.0


def _tar_bytes(manifest: Manifest, images: ImageSizes, count: int) -> tuple[float, float, float]:
    codes, crops = 0.0, 0.0
    for kind in kinds_of(manifest):
        header = len(array_header(manifest, kind))
        if kind != CROPS:
            codes += _member_bytes(header + manifest.spec.targets[kind].row_bytes)
        elif manifest.spec.crops == "raw":
            crops += _member_bytes(header + images.crop_bytes)
        else:
            crops += _TAR_BLOCK_BYTES + images.crop_bytes + (_TAR_BLOCK_BYTES - 1) / 2  # sizes of all kinds
    described = count * _member_bytes(_DESCRIBED_BYTES + images.key_bytes) + 2 * _TAR_BLOCK_BYTES
    return count * images.valid_share * codes, count * images.valid_share * crops, float(described)


def _member_bytes(size: float | int) -> int:
    return _TAR_BLOCK_BYTES * (1 + math.ceil(size / _TAR_BLOCK_BYTES))


def _record_bytes(manifest: Manifest, count: int, block: int) -> int:
    described = (manifest.spec.block_images * 1000, "0" * 32)
    record = UnitRecord(
        block=block,
        fingerprint=manifest.spec.fingerprint(),
        source_digest=manifest.source_digest,
        files=dict.fromkeys(files_of_unit(manifest, block), described),
        images=(_TYPICAL,) * count,
    )
    return len(record.to_bytes())


def index_bytes(listing: Listing, facts: Sequence[ImageFacts]) -> int:
    """About the size of the index over these images, whose facts are like those of a few of them."""
    known, count = list(facts) or [_TYPICAL], min(len(listing.keys), _INDEX_IMAGES)
    random = np.random.default_rng(0)
    record = UnitRecord(
        block=0,
        fingerprint="",
        source_digest="",
        files={},
        images=tuple(_like(known[which], random) for which in random.integers(len(known), size=count).tolist()),
    )
    first = Listing(
        keys=listing.keys[:count],
        paths=listing.paths[:count],
        labels=listing.labels[:count],
        offsets=None if listing.offsets is None else listing.offsets[:count],
    )
    return round(len(index_file(index_columns([record], first))) * len(listing.keys) / max(count, 1))


def _like(fact: ImageFacts, random: np.random.Generator) -> ImageFacts:
    """Facts of another image of that kind: its digest and its exact size do not compress."""
    return ImageFacts(
        height=fact.height,
        width=fact.width,
        bytes=int(fact.bytes * random.uniform(0.5, 1.5)),
        xxh3_128=random.bytes(16).hex(),
        reason=fact.reason,
    )


def table_files(tables: Mapping[str, Tables]) -> tuple[int, ...]:
    """Size of each file of what the codecs of some targets learn, the record of their quality included."""
    sizes = [len(data) for learned in tables.values() for data in files_of_codec(learned, None).values()]
    return (*sizes, *(_QUALITY_BYTES for _ in tables))
