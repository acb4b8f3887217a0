"""Crops of views that are drawn when they are needed, from images alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from caev2.errors import ConfigError, ImageUndecodable, SourceError
from caev2.store.pixels.crops import CropEncoding, as_kept
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import ViewSettings, render_views_at
from caev2.store.sources.source import ImageSource


@dataclass(frozen=True, slots=True)
class FreshCrops:
    """The student's crops, which its teacher sees as well."""

    source: ImageSource
    views: ViewSettings
    """How they are drawn."""
    kept_as: CropEncoding | None = None
    """How a store would keep them: with `jpeg` what is seen is what the JPEG decodes to."""

    @property
    def drifted(self) -> str | None:
        """Nothing is compared."""
        return None

    def crop(self, view: int, image: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of one view."""
        return self.cut(view, image, [self.views.size_px])[0]

    def fill(self, view: int, images: Int[np.ndarray, " image"], into: UInt8[np.ndarray, "image size size 3"]) -> None:
        """The pixels of one view of some images, put into an array; see `cut`."""
        for image, pixels in zip(images.tolist(), into, strict=True):
            pixels[...] = self.crop(view, image)

    def cut(self, view: int, image: int, sizes_px: Sequence[int]) -> list[np.ndarray]:
        """The box of one view at some sizes, the first of which is the student's.

        Raises:
            SourceError: The image cannot be read or decoded.
        """
        key = self.source.keys[image]
        try:
            pixels = decode_rgb(self.source.read(image), self.views.orientation)
        except ImageUndecodable as problem:
            raise SourceError(
                f"{self.source.place(image)} cannot be decoded: {problem}. Mend it; or train without it, as extraction "
                f"would: write its key, {key}, on a line of a file, and begin a new run with --leave-out FILE."
            ) from None
        _, (crop, *others) = next(iter(render_views_at(sizes_px, self.views, key, [view], pixels)))
        return [as_kept(self.kept_as, crop)[0], *others]


@dataclass(frozen=True, slots=True)
class FreshBoxes:
    """The student's crops, and the same boxes at the size of a teacher that takes another."""

    crops: FreshCrops
    shown_px: int

    @property
    def drifted(self) -> str | None:
        """Nothing is compared."""
        return None

    def fill_both(
        self,
        view: int,
        images: Int[np.ndarray, " image"],
        into: UInt8[np.ndarray, "image size size 3"],
        shown: UInt8[np.ndarray, "image other other 3"],
    ) -> None:
        """Each image is decoded once for both."""
        sizes = [self.crops.views.size_px, self.shown_px]
        for image, crop, box in zip(images.tolist(), into, shown, strict=True):
            crop[...], box[...] = self.crops.cut(view, image, sizes)


def read_left_out(file: Path) -> tuple[str, ...]:
    """Keys of images that are not to be used, one a line; blank lines say nothing.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"--leave-out {file} cannot be read: {problem}. Give a text file of keys.") from None
    return tuple(line for line in lines if line.strip())


def images_without(source: ImageSource, left_out: Sequence[str]) -> Int[np.ndarray, " image"]:
    """Numbers of all images but those of some keys.

    Raises:
        ConfigError: A key is not in the source.
    """
    unknown = sorted(set(left_out).difference(source.keys))
    if unknown:
        raise ConfigError(
            f"{unknown[0]!r}, which is to be left out, is no key of the {len(source)} images in {source.root}. Write "
            "keys as the message about an image has them: of a folder, paths below it."
        )
    without = set(left_out)
    return np.flatnonzero([key not in without for key in source.keys])
