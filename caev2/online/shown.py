"""What a live teacher is shown beside the student's crops, where that is not the very crops.

A teacher of another size sees the same boxes at its own, or the crops resized; and one whose student sees more jitter
than it does, the crops without that.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from caev2.store.pixels.crops import Crops
from caev2.store.pixels.replay import ViewReplay
from caev2.store.pixels.views import resize_crop


@dataclass(frozen=True, slots=True)
class ResizedCrops:
    """The student's crops as they are before it alone sees them jittered, at the teacher's size."""

    crops: Crops
    shown_px: int
    interpolation: str

    @property
    def drifted(self) -> str | None:
        """As of the crops."""
        return self.crops.drifted

    def fill_both(
        self,
        view: int,
        images: Int[np.ndarray, " image"],
        into: UInt8[np.ndarray, "image size size 3"],
        shown: UInt8[np.ndarray, "image other other 3"],
    ) -> None:
        """The crops, and copies of them; at the same size a copy has the very pixels."""
        self.crops.fill(view, images, into)
        for crop, copy in zip(into, shown, strict=True):
            copy[...] = resize_crop(crop, self.shown_px, self.interpolation)


@dataclass(frozen=True, slots=True)
class ReplayedBoxes:
    """The student's crops of a store, and the same boxes at the teacher's size."""

    crops: ViewReplay
    shown_px: int

    @property
    def drifted(self) -> str | None:
        """As of the crops."""
        return self.crops.drifted

    def fill_both(
        self,
        view: int,
        images: Int[np.ndarray, " image"],
        into: UInt8[np.ndarray, "image size size 3"],
        shown: UInt8[np.ndarray, "image other other 3"],
    ) -> None:
        """Each image is decoded once for both."""
        for image, crop, box in zip(images.tolist(), into, shown, strict=True):
            crop[...], box[...] = self.crops.crop_and_box(view, image, self.shown_px)
