"""From the bytes of images to crops of one size: the evaluation transform, and random crops to train on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from caev2.errors import ImageUndecodable, SourceError
from caev2.store.draws import Draws
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
        whole = decode_or_refuse(self.source, image, self.orientation)
        return np.array(cut_centre(whole, self.size_px, self.resize_px, Image.Resampling.BICUBIC))


def decode_or_refuse(source: ImageSource, image: int, orientation: Orientation) -> Image.Image:
    """An image of a source, as RGB.

    Raises:
        SourceError: It cannot be decoded.
    """
    try:
        return decode_rgb(source.read(image), orientation)
    except ImageUndecodable as problem:
        raise SourceError(
            f"{source.place(image)} cannot be decoded: {problem}. Every image of an "
            "evaluation counts; repair or remove it."
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCropping:
    """How a worker turns some images into a batch of random crops, other ones in every epoch."""

    source: ImageSource
    size_px: int
    orientation: Orientation
    seed: int
    epoch: int

    def crops_of(self, images: Sequence[int]) -> UInt8[Tensor, "image size size 3"]:
        """A crop of each of some images: a function of seed, epoch and image, and not of the batch.

        Raises:
            SourceError: One cannot be decoded.
        """
        return torch.from_numpy(np.stack([self._crop(image) for image in images]))

    def _crop(self, image: int) -> UInt8[np.ndarray, "size size 3"]:
        whole = decode_or_refuse(self.source, image, self.orientation)
        return np.array(cut_randomly(whole, self.size_px, Draws("random crop", self.seed, self.epoch, image)))


def cut_randomly(
    image: Image.Image,
    size_px: int,
    draws: Draws,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Image.Image:
    """A box of a random share of the area, resized bicubic, and mirrored half of the time.

    Drawn once, its sides cut to the image's, as for the published linear probes; torchvision would draw again.
    """
    area = image.width * image.height * draws.uniform(*scale)
    aspect = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
    width = min(max(1, round(math.sqrt(area * aspect))), image.width)
    height = min(max(1, round(math.sqrt(area / aspect))), image.height)
    top, left = draws.integer(image.height - height + 1), draws.integer(image.width - width + 1)
    box = image.crop((left, top, left + width, top + height)).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return box.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws.uniform() < 0.5 else box
