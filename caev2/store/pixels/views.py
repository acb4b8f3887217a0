"""Views: deterministic crops, their parameters as data, and their pixels.

The semantics are those of torchvision on PIL images, byte for byte: `ColorJitter`, then a horizontal flip, then
`RandomResizedCrop`, shared by teacher and student (2211.09799). A view is drawn once, at extraction; its resolved
parameters are stored and replayed, nothing is ever redrawn.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash
from jaxtyping import UInt8
from PIL import Image

from caev2.errors import ConfigError
from caev2.store.draws import Draws
from caev2.store.pixels.decode import Orientation
from caev2.store.pixels.jitter import CONTRAST, WholeImage, jitter

THUMBNAIL_PX = 14  # one pixel a patch of the published grid: 588 bytes a view

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """How views are drawn; the defaults are the published ones (METHOD: crop 0.4-1, jitter 0.4, flip one half)."""

    size_px: int = 224
    """Side of the square crop that the student sees, and a teacher of that size; others see the same box."""
    scale: tuple[float, float] = (0.4, 1.0)
    """Range of the crop's area, as a share of the image's."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width over its height, drawn log-uniformly."""
    jitter: float | None = 0.4
    """Strength of brightness, contrast and saturation jitter: factors lie in 1 ± strength. 0 leaves colours alone and
    draws all the same, so that boxes are those of any strength; with none, other boxes follow."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    """How the crop is resized."""
    orientation: Orientation = "exif"
    """`exif` applies the EXIF orientation; `ignore` does not, as the published loader."""
    seed: int = 0
    """Views are a function of (seed, image key, view index)."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ConfigError: A range is empty or outside of what can be drawn.
        """
        if self.size_px < 1:
            raise ConfigError(f"views.size_px is {self.size_px}; it must be at least 1.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"views.scale is {self.scale}; it must be 0 < low <= high <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"views.ratio is {self.ratio}; it must be 0 < low <= high.")
        if self.jitter is not None and not 0 <= self.jitter <= 1:
            raise ConfigError(f"views.jitter is {self.jitter}; it must be in [0, 1], or none.")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"views.flip is {self.flip}; it is a probability.")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The resolved parameters of one deterministic crop of one image."""

    box: tuple[int, int, int, int]
    """Top, left, height, width in source pixels, after orientation and before the flip."""
    flip: bool
    """Whether the crop is mirrored left to right."""
    order: tuple[int, int, int]
    """In which order brightness (0), contrast (1) and saturation (2) are jittered."""
    factors: tuple[float, float, float]
    """Factors of brightness, contrast and saturation; 1 leaves the pixels as they are."""
    grey_mean: int
    """Mean grey level, 0-255, of the whole image when contrast is jittered: what contrast blends with."""


def draw_view(settings: ViewSettings, key: str, index: int, image: Image.Image) -> View:
    """Draw the view `index` of the image called `key`.

    Args:
        settings: The ranges to draw from.
        key: The image's key: equal keys get equal draws wherever the file lies.
        index: Which view of the image, from 0; view k does not depend on how many there are.
        image: The whole RGB image, already oriented.
    """
    view, _, _ = _draw(settings, key, index, WholeImage(image))
    return view


def render_views(
    settings: ViewSettings, key: str, indices: Iterable[int], image: Image.Image
) -> Iterator[tuple[View, UInt8[np.ndarray, "size size 3"]]]:
    """Draw some views of one image, and their pixels: `draw_view` and `render_view`, sharing what they share.

    The views share the image's grey version, and a view's crop is cut out of the image that its grey mean was
    measured on, which is jittered already.

    Args:
        settings: The ranges to draw from.
        key: The image's key.
        indices: Which views.
        image: The whole RGB image, already oriented.
    """
    for view, (crop,) in render_views_at([settings.size_px], settings, key, indices, image):
        yield view, crop


def render_views_at(
    sizes_px: Sequence[int], settings: ViewSettings, key: str, indices: Iterable[int], image: Image.Image
) -> Iterator[tuple[View, tuple[UInt8[np.ndarray, "_ _ 3"], ...]]]:
    """The same at one or several sizes: of each view one box, jittered and mirrored once, resized to each.

    Args:
        sizes_px: Sides of the crops.
        settings: The ranges to draw from.
        key: The image's key.
        indices: Which views.
        image: The whole RGB image, already oriented.
    """
    whole = WholeImage(image)
    for index in indices:
        view, jittered, steps = _draw(settings, key, index, whole)
        box = _cut(jittered, view, steps)
        yield view, tuple(_resize(box, size_px, settings.interpolation) for size_px in sizes_px)


def _draw(settings: ViewSettings, key: str, index: int, whole: WholeImage) -> tuple[View, Image.Image, tuple[int, ...]]:
    """A view, the whole image as contrast finds it, and the steps of jitter that are left."""
    draws = Draws("view", settings.seed, key, index)
    order, factors = draw_jitter(draws, settings.jitter)
    flip = draws.uniform() < settings.flip
    image = whole.image
    top, left, height, width = draw_box(draws, image.height, image.width, settings.scale, settings.ratio)
    if flip:  # torchvision draws the box in the mirrored image
        left = image.width - left - width
    place = 0 if factors[CONTRAST] == 1.0 else order.index(CONTRAST)
    jittered = whole.jitter(order[:place], factors)
    grey_mean = 0 if factors[CONTRAST] == 1.0 else whole.grey_mean(jittered)
    view = View(box=(top, left, height, width), flip=flip, order=order, factors=factors, grey_mean=grey_mean)
    return view, jittered, order[place:]


def draw_jitter(draws: Draws, strength: float | None) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """In which order brightness, contrast and saturation are jittered, and the factor of each: within 1 ± strength."""
    if strength is None:
        return (0, 1, 2), (1.0, 1.0, 1.0)
    first, second, third = draws.permutation(3).tolist()
    low, high = max(0.0, 1 - strength), 1 + strength
    return (first, second, third), (
        draws.uniform(low, high),
        draws.uniform(low, high),
        draws.uniform(low, high),
    )


def draw_box(
    draws: Draws, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A box as torchvision's `RandomResizedCrop.get_params` draws it: ten tries, then the largest central crop.

    Returns:
        Top, left, height and width in pixels.
    """
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * draws.uniform(*scale)
        aspect = math.exp(draws.uniform(*log_ratio))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = draws.integer(height - box_height + 1)
            left = draws.integer(width - box_width + 1)
            return top, left, box_height, box_width
    return _central_box(height, width, ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest central box whose aspect lies within `ratio`."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def render_view(
    image: Image.Image, view: View, size_px: int, interpolation: str = "bicubic"
) -> UInt8[np.ndarray, "size size 3"]:
    """The pixels of a view.

    Jitter acts on each pixel by itself (contrast through the stored mean), so it may follow the crop. The flip comes
    before the resize, as in torchvision: resizing a mirrored image need not give the mirrored bytes.
    """
    return _resize(_cut(image, view, view.order), size_px, interpolation)


def resize_crop(
    crop: UInt8[np.ndarray, "size size 3"], size_px: int, interpolation: str = "bicubic"
) -> UInt8[np.ndarray, "other other 3"]:
    """A crop at another size, made of its pixels alone."""
    return _resize(Image.fromarray(crop), size_px, interpolation)


def _cut(image: Image.Image, view: View, steps: Sequence[int]) -> Image.Image:
    """The box of a view, out of an image that some steps of jitter have been done to already."""
    top, left, height, width = view.box
    crop = image.crop((left, top, left + width, top + height))
    crop = jitter(crop, steps, view.factors, view.grey_mean)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else crop


def _resize(box: Image.Image, size_px: int, interpolation: str) -> UInt8[np.ndarray, "size size 3"]:
    return np.asarray(box.resize((size_px, size_px), _RESAMPLING[interpolation]))


def hash_crop(crop: UInt8[np.ndarray, "size size 3"]) -> int:
    """The xxh3-64 of a crop's pixels: equal when teacher and student see the same."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(crop).data)


def shrink_crop(crop: UInt8[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "14 14 3"]:
    """The thumbnail kept with a view: area means, enough to tell a changed decoder from a changed image."""
    small = Image.fromarray(crop).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(small)
