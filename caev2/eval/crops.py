"""The evaluation transform: from the bytes of images to crops of one size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from caev2.errors import ImageUndecodable, SourceError
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation, decode_rgb


def evaluation_crop(
    data: bytes, size_px: int, resize_px: int, orientation: Orientation = "exif"
) -> UInt8[np.ndarray, "size size 3"]:
    """Resize the short side, bicubic, then crop the centre: the evaluation transform of the published protocols."""
    return np.array(cut_centre(decode_rgb(data, orientation), size_px, resize_px, Image.Resampling.BICUBIC))


def cut_centre(image: Image.Image, size_px: int, resize_px: int, resampling: Image.Resampling) -> Image.Image:
    """Resize the short side, then crop the centre: to the pixel what torchvision's transforms cut."""
    width, height = image.size
    short = min(width, height)
    if short != resize_px:  # as torchvision's Resize: the long side is cut down to an integer
        image = image.resize((int(resize_px * width / short), int(resize_px * height / short)), resampling)
    left, top = round((image.width - size_px) / 2), round((image.height - size_px) / 2)
    return image.crop((left, top, left + size_px, top + size_px))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cropping:
    """How a worker turns some images into a batch."""

    source: ImageSource
    size_px: int
    resize_px: int
    orientation: Orientation

    def crops_of(self, images: Sequence[int]) -> UInt8[Tensor, "image size size 3"]:
        """The crops of some images.

        Raises:
            SourceError: One cannot be decoded.
        """
        return torch.from_numpy(np.stack([self._crop(image) for image in images]))

    def _crop(self, image: int) -> UInt8[np.ndarray, "size size 3"]:
        try:
            return evaluation_crop(self.source.read(image), self.size_px, self.resize_px, self.orientation)
        except ImageUndecodable as problem:
            raise SourceError(
                f"{self.source.place(image)} cannot be decoded: {problem}. Every image of an "
                "evaluation counts; repair or remove it."
            ) from None
