"""Images with masks, in the layout of ADE20K, cut to one size.

    IMAGES/images/training/NAME.jpg        IMAGES/annotations/training/NAME.png
    IMAGES/images/validation/NAME.jpg      IMAGES/annotations/validation/NAME.png

A mask has one number a pixel. Image and mask are cut by the same geometry: the short side is resized, the image's
bicubic and the mask's by nearest neighbour, then the centre is cropped.
"""

import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from caev2.errors import ImageUndecodable, SourceError
from caev2.eval.crops import cut_centre
from caev2.eval.segmentation.confusion import IGNORED
from caev2.store.images import IMAGE_SUFFIXES, ImageSource
from caev2.store.pixels.decode import Orientation, decode_rgb, is_turned
from caev2.store.sources.folder import files_below, open_folder, read_file

Ignore = Literal[0, 255]
"""The number of a mask that counts for nobody. 0, as in ADE20K: the others begin at 1, and 255 is ignored too."""

_SPLITS = {"train": "training", "val": "validation"}
_LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_DAMAGED = (
    ImageUndecodable,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    struct.error,
)
_ONE_NUMBER = ("1", "L", "P", "I", "I;16")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedImages:
    """Images of one part of a data set, and the mask of each, in the order of their names."""

    images: ImageSource
    masks: ImageSource
    mask_of: tuple[int, ...]
    """By image: the number of its mask."""

    def __len__(self) -> int:
        return len(self.images)


def open_masked_images(place: Path, split: Literal["train", "val"]) -> MaskedImages:
    """List images and masks and see that they are pairs; none is read yet.

    Raises:
        SourceError: A folder is missing, or an image has no mask, or a mask no image.
    """
    folders = [place / kind / _SPLITS[split] for kind in ("images", "annotations")]
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(
                f"There is no {folder}. Segmentation needs images/training, images/validation, annotations/training "
                f"and annotations/validation in {place}, as in ADE20K."
            )
    images, masks = (_open_images(folder) for folder in folders)
    stems = [[key.rpartition(".")[0] for key in source.keys] for source in (images, masks)]
    if odd := sorted(set(stems[0]) ^ set(stems[1])):
        kinds = ("image", "mask") if odd[0] in stems[0] else ("mask", "image")
        raise SourceError(
            f"{place}: the {_SPLITS[split]} {kinds[0]} {odd[0]!r} has no {kinds[1]} of the same name"
            f"{f', nor have {len(odd) - 1} more' if odd[1:] else ''}. Give both the same names."
        )
    for source, names in zip((images, masks), stems, strict=True):
        if len(set(names)) != len(names):
            raise SourceError(f"{source.root}: two files have one name but for its ending. Remove one.")
    places = {stem: number for number, stem in enumerate(stems[1])}
    return MaskedImages(images=images, masks=masks, mask_of=tuple(places[stem] for stem in stems[0]))


def _open_images(folder: Path) -> ImageSource:
    names, strange = files_below(folder)
    chosen = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not chosen:
        raise SourceError(f"There is no image in {folder}. Put images or masks there.")
    return open_folder(folder, chosen, None, strange)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedCropping:
    """How a worker turns a range of images and masks into crops and labels."""

    source: MaskedImages
    size_px: int
    resize_px: int
    orientation: Orientation
    ignore: Ignore

    def crops_of(
        self, images: Sequence[int]
    ) -> tuple[UInt8[Tensor, "image size size 3"], UInt8[Tensor, "image size size"]]:
        """Crops, and of each pixel its class or `IGNORED`.

        Raises:
            SourceError: An image or a mask cannot be used.
        """
        pairs = [self._cut(image) for image in images]
        return tuple(torch.from_numpy(np.stack(one)) for one in zip(*pairs, strict=True))  # type: ignore[return-value]

    def _cut(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        images, masks = self.source.images, self.source.masks
        try:
            data = images.read(number)
            image = decode_rgb(data, self.orientation)
        except ImageUndecodable as problem:
            raise SourceError(
                f"{images.place(number)} cannot be decoded: {problem}. Every image of an evaluation counts; repair or "
                "remove it."
            ) from None
        if self.orientation == "exif" and is_turned(data):
            raise SourceError(
                f"{images.place(number)} has an EXIF orientation, and a mask has none to follow it. Turn its "
                "pixels and drop the tag, so that pixels and mask lie alike."
            )
        place = self.source.mask_of[number]
        mask = _decode_mask(masks, place)
        if mask.size != image.size:
            raise SourceError(
                f"{masks.place(place)} is of {mask.width} by {mask.height} pixels, its image of {image.width} by "
                f"{image.height}. Give masks of the size of their images."
            )
        labels = _labels(
            np.array(cut_centre(mask, self.size_px, self.resize_px, Image.Resampling.NEAREST)), self.ignore
        )
        if labels is None:
            raise SourceError(f"{masks.place(place)} holds numbers above 255. Give masks of at most 255 classes.")
        return np.array(cut_centre(image, self.size_px, self.resize_px, Image.Resampling.BICUBIC)), labels


def _decode_mask(masks: ImageSource, number: int) -> Image.Image:
    """A mask of one number a pixel; the colours of a palette are not looked at."""
    try:
        data = read_file(masks.root / masks.paths[number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; numbers are what counts
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            mask = Image.open(io.BytesIO(data), formats=_LOSSLESS)
            mask.load()
    except _DAMAGED as problem:
        raise SourceError(f"{masks.place(number)} cannot be decoded: {problem}. Repair or remove it.") from None
    if mask.mode not in _ONE_NUMBER:
        raise SourceError(
            f"{masks.place(number)} has the mode {mask.mode}, not one number a pixel. Give the masks of ADE20K's scene "
            "parsing benchmark, or convert colours to numbers."
        )
    # 16-bit modes cannot be resized by Pillow, and numbers above 255 are refused below
    return mask if mask.mode in ("L", "P") else Image.fromarray(np.array(mask).astype(np.int32))


def _labels(numbers: np.ndarray, ignore: Ignore) -> UInt8[np.ndarray, "size size"] | None:
    """Classes from 0 up, and `IGNORED`; none where numbers are too large."""
    if numbers.min() < 0 or numbers.max() > IGNORED:
        return None
    numbers = numbers.astype(np.uint8)
    if ignore == IGNORED:
        return numbers
    return np.where(numbers == IGNORED, IGNORED, numbers - np.uint8(1))  # 0 becomes 255, which is ignored
