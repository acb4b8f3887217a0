"""Crops kept in a store, so that training needs no source images.

The crops of one view of one block lie one after another in one file, each followed by its crc32c; their sizes, and the
checksums once more, are small arrays. `raw` is the pixels; `jpeg` is a JPEG of quality 95 with full colour resolution,
and then the teacher, too, sees what the JPEG decodes to.
"""

import io
import math
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from caev2.errors import ImageUndecodable, PixelDrift, StoreCorrupt, StoreMismatch
from caev2.store.layout import CROPS, row_file
from caev2.store.pixels.jpeg import JpegReader
from caev2.store.pixels.views import hash_crop, shrink_crop
from caev2.store.reader import Store

CropEncoding = Literal["jpeg", "raw"]
JPEG_QUALITY = 95

DECODER_DRIFT = 0.5
"""Mean difference of thumbnails, in grey levels, up to which another decoder explains other pixels. A crop shifted by
one pixel costs ten times more fidelity than 4-bit codes, so more is refused."""


@runtime_checkable  # so that the tests may check it as a type
class Crops(Protocol):
    """Whoever gives the pixels that the teacher saw."""

    @property
    def drifted(self) -> str | None:
        """What to warn of: the key of an image whose pixels another decoder has changed a little."""
        ...

    def crop(self, view: int, image: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of one view, compared with the stored hash."""
        ...

    def fill(self, view: int, images: Int[np.ndarray, " image"], into: UInt8[np.ndarray, "image size size 3"]) -> None:
        """The pixels of one view of some images, each compared with its stored hash, put into an array."""
        ...


def encode_crop(encoding: str, crop: UInt8[np.ndarray, "size size 3"]) -> bytes:
    """A crop as it is kept."""
    if encoding == "raw":
        return crop.tobytes()
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def decode_crop(encoding: str, data: bytes, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """A kept crop as pixels.

    Raises:
        ImageUndecodable: The bytes are no such crop.
    """
    pixels = np.empty((size_px, size_px, 3), np.uint8)
    _Decoder(encoding, size_px).decode(data, pixels)
    return pixels


class _Decoder:
    """Makes pixels of kept crops of one encoding and size."""

    def __init__(self, encoding: str, size_px: int):
        self._size_px = size_px
        self._jpeg = JpegReader(size_px) if encoding == "jpeg" else None

    def decode(self, data: bytes | memoryview, into: UInt8[np.ndarray, "size size 3"]) -> None:
        """Put the pixels of a crop into an array, where raw ones may lie already."""
        if self._jpeg is not None:
            self._jpeg.read(data, into)
        elif len(data) != into.nbytes:
            raise ImageUndecodable(
                f"the kept crop is no raw of {self._size_px} pixels: it has {len(data)} bytes, not {into.nbytes}"
            )
        elif not np.may_share_memory(pixels := np.frombuffer(data, np.uint8), into):
            into.reshape(-1)[:] = pixels


def as_kept(encoding: str | None, crop: UInt8[np.ndarray, "size size 3"]) -> tuple[np.ndarray, bytes]:
    """What the teacher sees of a crop, and the bytes that are kept of it; none if crops are not kept."""
    if encoding is None:
        return crop, b""
    data = encode_crop(encoding, crop)
    return (crop if encoding == "raw" else decode_crop(encoding, data, len(crop))), data


class StoredCrops:
    """The crops of a store that keeps them.

    Args:
        store: Whose crops.

    Raises:
        StoreMismatch: It keeps none.
    """

    def __init__(self, store: Store):
        encoding = store.manifest.spec.crops
        if encoding is None:
            raise StoreMismatch(f"{store.path} keeps no crops. Give --images the folder that it was extracted from.")
        self._store, self._decoder = store, _Decoder(encoding, store.manifest.spec.views.size_px)
        self.drifted: str | None = None

    def crop(self, view: int, image: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of one view, compared with the stored hash; see `fill`."""
        size_px = self._store.manifest.spec.views.size_px
        pixels = np.empty((1, size_px, size_px, 3), np.uint8)
        self.fill(view, np.asarray([image]), pixels)
        return pixels[0]

    def fill(self, view: int, images: Int[np.ndarray, " image"], into: UInt8[np.ndarray, "image size size 3"]) -> None:
        """The pixels of one view of some images, each compared with its stored hash, put into an array.

        Raises:
            StoreCorrupt: The bytes on disk are not those that were written.
            PixelDrift: They decode to other pixels than the teacher saw.
        """
        hashes = self._store.view_values("crop_hash", view, images).tolist()
        kept = self._store.read_crops(view, images, into.reshape(len(into), math.prod(into.shape[1:])))
        for image, data, pixels, wanted in zip(images.tolist(), kept, into, hashes, strict=True):
            try:
                self._decoder.decode(data, pixels)
            except ImageUndecodable as problem:
                raise StoreCorrupt(f"{self._describe(view, image)}: {problem}.") from None
            if hash_crop(pixels) != wanted:
                self._explain(view, image, pixels)

    def _explain(self, view: int, image: int, crop: np.ndarray) -> None:
        """Another JPEG decoder may differ a little; the bytes themselves are sound."""
        difference = thumbnail_difference(self._store, view, image, crop)
        if difference > DECODER_DRIFT:
            raise PixelDrift(
                f"{self._describe(view, image)} decodes to other pixels than the teacher saw, by {difference:.2f} grey "
                f"levels, more than {DECODER_DRIFT}. Another version of Pillow or libjpeg decodes otherwise; install "
                "the one that the store was made with, or keep crops with --crops raw."
            )
        self.drifted = self._store.keys[image]

    def _describe(self, view: int, image: int) -> str:
        block = image // self._store.manifest.spec.block_images
        path = self._store.path / row_file(self._store.manifest, CROPS, view, block)
        return f"{path}: the crop of image {image}, view {view}"


def thumbnail_difference(store: Store, view: int, image: int, crop: UInt8[np.ndarray, "size size 3"]) -> float:
    """How far a crop is from the stored one, in grey levels, as their thumbnails show it."""
    stored = store.view_value("thumbnail", view, image)
    return float(np.abs(shrink_crop(crop).astype(float) - stored.astype(float)).mean())
