"""What an extraction can be told, and the built-in choices.

The recipes are called like those of pre-training: `tiny-300e` here makes the store that `tiny-300e` there learns from.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from caev2.errors import ConfigError
from caev2.extract.teachers.names import DEFAULT_TEACHER
from caev2.extract.teachers.teacher import Precision
from caev2.recipe import speed
from caev2.store.codecs.calibration import CALIBRATION_IMAGES, HELD_OUT_IMAGES
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.quality import QualityFloor
from caev2.store.manifest import Layout
from caev2.store.pixels.views import ViewSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractRecipe:
    """How targets are made."""

    views: ViewSettings = field(default_factory=ViewSettings)
    """How the crops are drawn."""
    view_count: int = 4
    """Views of each image. The published code draws a new one every epoch; a store has a fixed number."""
    first_view: int = 0
    """The first of them: 4 makes a part with the views 4, 5, ..., to be grafted onto a store that has four."""
    target_prefix: str = ""
    """Put before the names of targets, so that those of several teachers can lie in one store: `dino-`."""
    teacher: str = DEFAULT_TEACHER
    """Name of the teacher; `caev2 teachers` lists them."""
    teacher_px: int | None = None
    """Side of the crops it is to take, its positions resized; none: the one it was trained with. Where the views have
    another, it is shown their boxes at its own."""
    from_crops: bool = False
    """Then, instead: the views' crops resized, as they are kept where they are. What `--from-crops` sets."""
    taps: tuple[str, ...] = ("projected",)
    """Where latents are taken; each becomes a target of that name."""
    precision: Precision | None = None
    """Of the teacher; none: fp16 on a GPU, as published, fp32 on a CPU."""
    codec: str = "auto"
    """How rows are stored: a codec's name, or `auto`: `lloyd4` where there are images enough to calibrate it on,
    `float16` elsewhere."""
    floor: QualityFloor = field(default_factory=QualityFloor)
    """What a codec that loses something has to reach on images that did not calibrate it; what is not said here is as
    in `quality.FLOORS`. It decides whether there is a store, not what is in it."""
    crops: Literal["jpeg", "raw"] | None = None
    """Whether the store keeps the crops, so that training needs no source images: as JPEG of quality 95, which the
    teacher then sees as well if it takes crops of that size, or as they are."""
    layout: Layout = "zarr"
    """In which files rows lie: zarr shards, or tars that stock `webdataset` reads. The numbers are the same."""
    block_images: int = 512
    """Images of a block: what is lost at most when an extraction is killed."""
    teacher_batch: int = 64
    """Views in one forward pass of the teacher."""
    workers: int | None = speed(None)
    """Processes that decode and crop for each device; 0: none but the one that computes; none: as the cores allow."""
    max_failed: float = 0.05
    """Share of undecodable images above which the extraction stops. It decides whether there is a store, not what is in
    it: no part of the store's spec, so the next command may go on with another share."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ConfigError: A number is out of range.
        """
        for name in ("view_count", "block_images", "teacher_batch", "teacher_px"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.first_view < 0:
            raise ConfigError(f"first_view is {self.first_view}; it must be at least 0.")
        if (self.workers or 0) < 0 or not 0 <= self.max_failed <= 1:
            raise ConfigError("workers must be at least 0 and max_failed a share between 0 and 1.")
        if not self.taps or len(set(self.taps)) < len(self.taps):
            raise ConfigError(f"taps is {self.taps}; name at least one tap, each once.")
        if self.codec != "auto":
            codec_named(self.codec)

    def target_name(self, tap: str) -> str:
        """What the target of a tap is called in a store."""
        return self.target_prefix + tap.replace(":", "-")

    def codec_for(self, images: int) -> str:
        """The codec of a store of so many images."""
        if self.codec != "auto":
            return self.codec
        return "lloyd4" if images >= CALIBRATION_IMAGES + HELD_OUT_IMAGES else "float16"


PUBLISHED = ExtractRecipe()
"""Crops and jitter as published (2211.09799, reference scripts). Four views are our choice: ImageNet-1k then takes
0.26 TB in lloyd4, 1.03 TB in float16."""

DEMO = ExtractRecipe(
    views=ViewSettings(size_px=64, scale=(0.6, 1.0), jitter=0.3, flip=0.0),
    view_count=2,
    teacher="demo",
    teacher_batch=64,
    codec="float16",
    workers=0,  # on two cores: 565 rows/s against 461 with two workers
)
"""The built-in scenes: digits must not be mirrored, and small crops would cut them off."""

STUDY = dataclasses.replace(DEMO, view_count=16, taps=("projected", "post_norm", "block:4"), crops="raw")
"""The built-in study (`caev2 demo --study`): enough views for their number to be varied, and the three targets that are
compared; block 4 is the teacher's last. Crops are kept, for many runs read them: a step of recipe `study` takes 2.1 ms
of a core an image with them, 2.55 from the scenes' files."""

RECIPES = {
    "tiny-300e": PUBLISHED,
    "small-300e": PUBLISHED,
    "base-300e": PUBLISHED,
    "large-300e": PUBLISHED,
    "demo": DEMO,
    "study": STUDY,
}
