"""Crops kept in a store, so that training needs no source images.

The crops of one view of one block lie one after another in one file, each followed by its crc32c; their sizes, and the
checksums once more, are small arrays. `raw` is the pixels; `jpeg` is a JPEG of quality 95 with full colour resolution,
and then the teacher, too, sees what the JPEG decodes to.
"""

import io
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from caev2.errors import ImageUndecodable, PixelDrift, StoreCorrupt, StoreMismatch
from caev2.store.layout import CROPS, row_file
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
    shape = (size_px, size_px, 3)
    try:
        if encoding == "raw":
            return np.frombuffer(data, np.uint8).reshape(shape)
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as problem:
        raise ImageUndecodable(f"the kept crop is no {encoding} of {size_px} pixels: {problem}") from None
    if pixels.shape != shape:
        raise ImageUndecodable(f"the kept crop has shape {pixels.shape}, not {shape}")
    return pixels


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
        self._store, self._encoding = store, encoding
        self.drifted: str | None = None

    def crop(self, view: int, image: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of one view, compared with the stored hash.

        Raises:
            StoreCorrupt: The bytes on disk are not those that were written.
            PixelDrift: They decode to other pixels than the teacher saw.
        """
        data = self._store.read_crop(view, image)
        try:
            crop = decode_crop(self._encoding, data, self._store.manifest.spec.views.size_px)
        except ImageUndecodable as problem:
            raise StoreCorrupt(f"{self._describe(view, image)}: {problem}.") from None
        if hash_crop(crop) != int(self._store.view_value("crop_hash", view, image)):
            self._explain(view, image, crop)
        return crop

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
