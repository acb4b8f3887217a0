"""Replaying stored views on the source images, and proving that they are the pixels the teacher saw."""

import numpy as np
import xxhash
from jaxtyping import Int, UInt8
from PIL import Image

from caev2.errors import ImageUndecodable, PixelDrift, SourceError
from caev2.store.images import ImageSource
from caev2.store.pixels.crops import DECODER_DRIFT, Crops, StoredCrops, as_kept, thumbnail_difference
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import hash_crop, render_view
from caev2.store.reader import Store


def open_crops(store: Store, source: ImageSource | None, *, boxes: bool = False) -> Crops:
    """The crops of a store: its own where it keeps them, else made anew from the images.

    Args:
        store: Whose crops.
        source: What it was extracted from.
        boxes: Whether boxes are wanted at other sizes as well, which takes images even where crops are kept.

    Raises:
        SourceError: It keeps none, and no images are given, or one of them is missing, or they cannot be read in any
            order.
    """
    if store.manifest.spec.crops is not None and not boxes:
        return StoredCrops(store)
    if source is None and store.manifest.spec.crops is not None:
        raise SourceError(
            f"{store.path} keeps crops of {store.manifest.spec.views.size_px} pixels, and a teacher saw their boxes at "
            "another size. Give --images, the folder it was extracted from."
        )
    if source is None:
        raise SourceError(
            f"{store.path} holds targets but no pixels. Give --images, the folder it was extracted from; a store that "
            "was extracted with --crops jpeg or raw needs none."
        )
    if not source.seekable:
        raise SourceError(
            f"The images in {source.root} lie in a compressed tar, which can be read from its beginning only, and "
            "they are wanted in another order. Decompress it; or extract with --crops jpeg: training needs no images."
        )
    return ViewReplay(store, source)


class ViewReplay:
    """Crops of a store's views, made anew from the images.

    Args:
        store: Where the views are recorded.
        source: The images they were taken from, wherever they lie now.

    Raises:
        SourceError: An image of the store is missing from the source.
    """

    def __init__(self, store: Store, source: ImageSource):
        self._store, self._source = store, source
        self._places = _match_images(store, source)
        self.drifted: str | None = None
        """What to warn of: the key of an image whose pixels another decoder has changed a little."""

    def crop(self, view: int, image: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of one view, compared with the stored hash.

        Raises:
            PixelDrift: They differ by more than a decoder could explain.
        """
        return self._replay(view, image)[0]

    def fill(self, view: int, images: Int[np.ndarray, " image"], into: UInt8[np.ndarray, "image size size 3"]) -> None:
        """The pixels of one view of some images, put into an array; see `crop`."""
        for image, pixels in zip(images.tolist(), into, strict=True):
            pixels[...] = self.crop(view, image)

    def box(self, view: int, image: int, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of a view's box at another size than the views', once those are found to be the stored ones.

        Raises:
            PixelDrift: They are not.
        """
        return self.crop_and_box(view, image, size_px)[1]

    def crop_and_box(
        self, view: int, image: int, size_px: int
    ) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "other other 3"]]:
        """The pixels of a view, and those of its box at another size, of an image that is decoded once; see `box`."""
        crop, pixels = self._replay(view, image)
        views = self._store.manifest.spec.views
        return crop, render_view(pixels, self._store.view(view, image), size_px, views.interpolation)

    def compare(self, image: int) -> None:
        """Compare the pixels of all views of an image, which is decoded once.

        Raises:
            PixelDrift: Those of one differ by more than a decoder could explain.
        """
        data, pixels = self._decode(image)
        for view in range(self._store.views):
            self._cut(view, image, data, pixels)

    def _replay(self, view: int, image: int) -> tuple[UInt8[np.ndarray, "size size 3"], Image.Image]:
        """The crop, compared, and the whole image."""
        data, pixels = self._decode(image)
        return self._cut(view, image, data, pixels), pixels

    def _decode(self, image: int) -> tuple[bytes, Image.Image]:
        """The file, and what it shows."""
        data = self._source.read(int(self._places[image]))
        try:
            return data, decode_rgb(data, self._store.manifest.spec.views.orientation)
        except ImageUndecodable as problem:
            raise PixelDrift(
                f"{self._describe(image)} could be decoded at extraction and now cannot: {problem}."
            ) from None

    def _cut(self, view: int, image: int, data: bytes, pixels: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
        """A view of an image, compared."""
        settings = self._store.manifest.spec.views
        crop = render_view(pixels, self._store.view(view, image), settings.size_px, settings.interpolation)
        crop, _ = as_kept(self._store.manifest.spec.crops, crop)
        if hash_crop(crop) != int(self._store.view_value("crop_hash", view, image)):
            self._explain(view, image, data, crop)
        return crop

    def _explain(self, view: int, image: int, data: bytes, crop: np.ndarray) -> None:
        """Tell a changed decoder from a changed image."""
        before, now = self._store.source_digests[image], xxhash.xxh3_128_hexdigest(data)
        if before != now:
            raise PixelDrift(
                f"{self._describe(image)} is not the file that the teacher saw: its xxh3-128 is {now}, it was "
                f"{before}. Restore the images, or extract the store again."
            )
        difference = thumbnail_difference(self._store, view, image, crop)
        if difference > DECODER_DRIFT:
            raise PixelDrift(
                f"{self._describe(image)}: the file is unchanged, but view {view} differs by {difference:.2f} grey "
                f"levels from what the teacher saw, more than {DECODER_DRIFT}. Another version of Pillow decodes or "
                "resizes otherwise; install the one that the store was made with, or extract the store again."
            )
        self.drifted = self._source.keys[int(self._places[image])]

    def _describe(self, image: int) -> str:
        place = int(self._places[image])
        return f"Image {self._source.keys[place]!r} in {self._source.root}"


def _match_images(store: Store, source: ImageSource) -> np.ndarray | range:
    """For each image of the store, its number in the source."""
    if source.digest() == store.manifest.source_digest:
        return range(len(store))
    place = {key: number for number, key in enumerate(source.keys)}
    missing = [store.keys[image] for image in store.valid_images if store.keys[image] not in place]
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(store.valid_images)} images in {store.path} are not in {source.root}; the "
            f"first is {missing[0]!r}. Give --images the folder that the store was extracted from."
        )
    return np.asarray([place.get(key, -1) for key in store.keys])
