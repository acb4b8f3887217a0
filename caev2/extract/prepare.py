"""From an image's file to its rendered views, in worker processes: one decode for all views."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from caev2.errors import ImageUndecodable
from caev2.store.images import ImageSource
from caev2.store.pixels.crops import CropEncoding, as_kept
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.kept import KeptViews
from caev2.store.pixels.views import ViewSettings, render_views_at, resize_crop
from caev2.store.records import ImageFacts, describe_file
from caev2.store.unit_writer import fields_of


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What a worker hands over about one image; without views if it could not be decoded."""

    number: int
    """Of the image in its source."""
    facts: ImageFacts
    fields: tuple[Mapping[str, Any], ...]
    """Of each view, what the store keeps beside its row."""
    crops: UInt8[torch.Tensor, "view size size 3"]
    """What the teacher sees, at its own size."""
    kept: tuple[bytes, ...]
    """The crops as the store keeps them; empty texts where it does not."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images are prepared; everything a worker process needs."""

    source: ImageSource
    views: ViewSettings
    """How they are drawn."""
    chosen: range
    """Which views of each image."""
    crops: CropEncoding | None = None
    """How the store keeps crops; a teacher of their size sees them as they are kept."""
    teacher_px: int | None = None
    """Side of the crops that the teacher takes; none: that of the views."""
    from_crops: bool = False
    """Whether a teacher of another size sees the views' crops resized, and not their boxes."""

    @property
    def crop_px(self) -> int:
        """Side of the crops that the teacher sees."""
        return self.teacher_px or self.views.size_px

    def prepare(self, image: int) -> PreparedImage:
        """Read, decode and crop one image. What cannot be decoded becomes facts with a reason.

        Raises:
            SourceError: The file cannot be read now; another time it may, so it is not marked as undecodable.
            StoreCorrupt: A kept crop is not what was written.
        """
        if isinstance(self.source, KeptViews):
            return self._take(self.source, image)
        data = b""
        try:
            data = self.source.read(image)
            pixels = decode_rgb(data, self.views.orientation)
        except ImageUndecodable as problem:
            return self._without_views(image, describe_file(data, reason=str(problem)))
        facts = describe_file(data, height=pixels.height, width=pixels.width)
        fields, shown, kept = [], [], []
        sizes = [self.views.size_px] if self._shows_crops else [self.views.size_px, self.crop_px]
        for view, (cut, *boxes) in render_views_at(sizes, self.views, self.source.keys[image], self.chosen, pixels):
            crop, data_kept = as_kept(self.crops, cut)
            fields.append(fields_of(view, crop))
            shown.append(boxes[0] if boxes else self._fit(crop))
            kept.append(data_kept)
        return PreparedImage(image, facts, tuple(fields), torch.from_numpy(np.stack(shown)), tuple(kept))

    def _take(self, source: KeptViews, image: int) -> PreparedImage:
        """The same of an image whose views a store keeps."""
        facts = source.facts(image)
        if facts.reason is not None:
            return self._without_views(image, facts)
        views = source.views(image, self.chosen)
        shown = np.stack([self._fit(view.crop) for view in views])
        fields, kept = tuple(view.fields for view in views), tuple(view.data for view in views)
        return PreparedImage(image, facts, fields, torch.from_numpy(shown), kept)

    @property
    def _shows_crops(self) -> bool:
        """Whether the teacher needs nothing but the views' crops."""
        return self.from_crops or self.crop_px == self.views.size_px

    def _fit(self, crop: UInt8[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "other other 3"]:
        """A crop at the teacher's size: itself, most often."""
        if self.crop_px == self.views.size_px:
            return crop
        return resize_crop(crop, self.crop_px, self.views.interpolation)

    def _without_views(self, image: int, facts: ImageFacts) -> PreparedImage:
        none = torch.empty((0, self.crop_px, self.crop_px, 3), dtype=torch.uint8)
        return PreparedImage(image, facts, (), none, ())
