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
from caev2.store.pixels.views import ViewSettings, render_views
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
    """What the teacher sees."""
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
    """How the store keeps crops; the teacher sees them as they are kept."""

    @property
    def crop_px(self) -> int:
        """Side of the crops that the teacher sees."""
        return self.views.size_px

    def prepare(self, image: int) -> PreparedImage:
        """Read, decode and crop one image. What cannot be decoded becomes facts with a reason.

        Raises:
            SourceError: The file cannot be read now; another time it may, so it is not marked as undecodable.
        """
        data = b""
        try:
            data = self.source.read(image)
            pixels = decode_rgb(data, self.views.orientation)
        except ImageUndecodable as problem:
            none = torch.empty((0, self.views.size_px, self.views.size_px, 3), dtype=torch.uint8)
            return PreparedImage(image, describe_file(data, reason=str(problem)), (), none, ())
        facts = describe_file(data, height=pixels.height, width=pixels.width)
        drawn = list(render_views(self.views, self.source.keys[image], self.chosen, pixels))
        seen = [as_kept(self.crops, crop) for _, crop in drawn]
        fields = tuple(fields_of(view, crop) for (view, _), (crop, _) in zip(drawn, seen, strict=True))
        crops = torch.from_numpy(np.stack([crop for crop, _ in seen]))
        return PreparedImage(image, facts, fields, crops, tuple(kept for _, kept in seen))
