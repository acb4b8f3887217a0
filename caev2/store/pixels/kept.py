"""The views that a store keeps the crops of, as a source of images that needs none of their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from caev2.errors import ImageUndecodable, PixelDrift, StoreCorrupt, StoreMismatch
from caev2.store.index import listing_of, read_index
from caev2.store.layout import VIEW_FIELDS
from caev2.store.pixels.crops import decode_crop
from caev2.store.pixels.views import hash_crop
from caev2.store.reader import Store
from caev2.store.records import ImageFacts, read_record
from caev2.store.sources.source import ImageSource


@dataclass(frozen=True, slots=True)
class KeptView:
    """One view as it lies in a store."""

    fields: Mapping[str, Any]
    """The value of each of `layout.VIEW_FIELDS`."""
    crop: UInt8[np.ndarray, "size size 3"]
    """What its teacher saw."""
    data: bytes
    """The crop as it is kept."""


class KeptReader:
    """Reads the images of a store as its crops show them; travels to worker processes.

    Args:
        store: Which keeps its crops.
    """

    def __init__(self, store: Store):
        self.store = store
        self._block: tuple[int, tuple[ImageFacts, ...]] | None = None

    def read(self, index: int) -> bytes:
        """All that is kept of an image's crops: what has to be read of it."""
        if self.facts(index).reason is not None:
            return b""
        return b"".join(self.store.read_crop(view, index) for view in range(self.store.views))

    def facts(self, image: int) -> ImageFacts:
        """What was known of the image's file.

        Raises:
            StoreCorrupt: The record of its unit is missing or damaged.
        """
        block, place = divmod(image, self.store.manifest.spec.block_images)
        if self._block is None or self._block[0] != block:
            record = read_record(self.store.path, self.store.manifest, block)
            if record is None:
                raise StoreCorrupt(f"{self.store.path}: the record of block {block} is missing. Restore the store.")
            self._block = block, record.images
        return self._block[1][place]

    def view(self, view: int, image: int) -> KeptView:
        """One view, its pixels compared with their checksum and their hash.

        Raises:
            StoreCorrupt: The bytes are not those that were written.
            PixelDrift: They decode to other pixels than those that were hashed.
        """
        spec = self.store.manifest.spec
        fields = {name: self.store.view_value(name, view, image) for name in VIEW_FIELDS}
        data = self.store.read_crop(view, image)
        where = f"{self.store.path}: the crop of image {image}, view {view},"
        try:
            crop = decode_crop(str(spec.crops), data, spec.views.size_px)
        except ImageUndecodable as problem:
            raise StoreCorrupt(f"{where} is damaged: {problem}.") from None
        if hash_crop(crop) != int(fields["crop_hash"]):
            raise PixelDrift(
                f"{where} decodes to other pixels than those whose hash is stored, {int(fields['crop_hash'])}; it is "
                f"now {hash_crop(crop)}. Another version of Pillow or libjpeg decodes otherwise; install the one that "
                "the store was made with."
            )
        return KeptView(fields, crop, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptViews(ImageSource):
    """The images of a store that keeps its crops: their views are there already, drawn and rendered."""

    kept: KeptReader
    """Gets them."""
    numbers: Sequence[int]
    """Of each image, its number in the store."""

    @property
    def store(self) -> Store:
        """Where they lie."""
        return self.kept.store

    def facts(self, index: int) -> ImageFacts:
        """What was known of an image's file when it was read."""
        return self.kept.facts(self.numbers[index])

    def views(self, index: int, chosen: range) -> list[KeptView]:
        """Some views of an image that has rows."""
        return [self.kept.view(view, self.numbers[index]) for view in chosen]

    def take(self, numbers: Sequence[int]) -> "KeptViews":
        """The source of some of these images, in the order of their keys, with all classes."""
        chosen = ImageSource.take(self, numbers)
        assert isinstance(chosen, KeptViews)
        return replace(chosen, numbers=tuple(self.numbers[number] for number in sorted(numbers)))


def open_kept_views(place: Path) -> KeptViews:
    """The images of a sealed store, whose crops take the place of their files.

    Args:
        place: Folder of the store, on a local disk.

    Raises:
        StoreMismatch: It keeps no crops, or it is a part that begins with a later view.
        StoreIncomplete: It is not sealed.
    """
    store = Store(place.absolute())
    if store.manifest.spec.crops is None:
        raise StoreMismatch(
            f"{place} keeps no crops, so nothing can be extracted from it. Give the images; or extract it anew with "
            "--crops jpeg or raw."
        )
    if store.manifest.first_view:
        raise StoreMismatch(
            f"{place} is a part that begins with view {store.manifest.first_view}. Graft it onto its store, and give "
            "that one."
        )
    reader, listing = KeptReader(store), listing_of(read_index(store.path))
    return KeptViews(
        root=place.absolute(),
        keys=tuple(store.keys),
        paths=tuple(listing.paths),
        offsets=tuple(listing.offsets or ()),
        labels=tuple(listing.labels),
        classes=store.manifest.classes,
        reader=reader,
        kept=reader,
        numbers=range(len(store)),
    )
