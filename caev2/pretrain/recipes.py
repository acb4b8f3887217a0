"""What a pre-training run can be told, and the built-in choices.

Each recipe of the paper stands for one published script (Zhang et al., 2211.09799; TMLR 2023). The recipes are called
like those of extraction. What they cannot keep is the fresh crop of every epoch: a store has a fixed number of views.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from caev2.errors import ConfigError
from caev2.pretrain.learning.objective import PUBLISHED, LossSettings
from caev2.pretrain.student.sizes import SIZES, ModelSettings
from caev2.pretrain.supply.masks import MaskSettings
from caev2.pretrain.supply.order import Ordering
from caev2.recipe import later, speed


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedule; the defaults are the published ones."""

    lr: float = 1.5e-3
    """Peak learning rate, not scaled by the batch."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine."""
    warmup_epochs: float = 10.0
    """Linear rise from zero."""
    weight_decay: float = 0.05
    """Of matrices, the class token and the mask token; never of vectors and biases."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the moments."""
    clip_norm: float | None = 3.0
    """Largest norm of all gradients together."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ConfigError: A number is out of range.
        """
        for name in ("lr", "min_lr", "warmup_epochs", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"optimizer.{name} is {getattr(self, name)}; it must be at least 0.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas are {self.betas}; each must be at least 0 and below 1.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"optimizer.clip_norm is {self.clip_norm}; it must be above 0, or none.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecipe:
    """Everything about a pre-training run."""

    model: ModelSettings
    """Sizes of the student. The width of the head is taken from the store's target."""
    mask: MaskSettings
    """Which patches are masked."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """AdamW and its schedule."""
    loss: LossSettings = later(PUBLISHED)  # noqa: RUF009
    """Which tokens are supervised, how they are weighed and compared."""
    epochs: int = 300
    """Passes over the valid images; each takes one stored view of every image."""
    batch_size: int = 2048
    """Images of a step, over all devices."""
    target: str = "projected"
    """Which of the store's targets is learnt."""
    views: int | None = None
    """Use only the first so many stored views; none: all."""
    order: Ordering = "full"
    """In which order rows are used: `full` permutes all of them; `window` goes through whole files of the store, some
    at a time, as tars and remote stores want it."""
    window_blocks: int = 16
    """With `window`: blocks of the store whose rows are shuffled together; 16 blocks of 512 images are 8,192 rows."""
    precision: Literal["fp32", "bf16"] | None = None
    """Autocast type of the student; none: bf16 on a GPU, fp32 on a CPU, where it was measured to be faster."""
    seed: int = 0
    """Initial weights, order, masks, drop path and jitter are functions of it."""
    student_jitter: float = later(0.0)
    """Strength of brightness, contrast and saturation jitter that the student alone sees, on top of the view's own."""
    ema_decay: float | None = later(None)
    """Keep a moving average of the weights, of which so much stays at each step, such as 0.9999; none: no average."""
    checkpoint_epochs: int = speed(1)
    """Epochs between checkpoints."""
    checkpoint_steps: int | None = speed(None)
    """Steps between checkpoints, if not whole epochs."""
    keep_checkpoints: int = speed(2)
    """How many of the latest checkpoints stay on disk."""
    log_steps: int = speed(10)
    """Steps between lines of the log."""
    workers: int | None = speed(None)
    """Processes of each rank that read targets and crop images; 0: none but this one; none: as many as are needed."""
    accumulate: int = speed(1)
    """In how many parts a batch goes through the student, one after another, where it does not fit at once."""
    recompute_activations: bool = speed(False)
    """Keep only what goes into each block and compute the rest again for the gradient: half the memory or less, for a
    third more time."""
    compile: bool | None = speed(None)
    """Let torch compile the step; none: on a GPU, where it pays for the minutes that it takes."""
    knn_epochs: int = speed(10)
    """Epochs between judgements by nearest neighbours, where labelled images for them are given."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ConfigError: A number is out of range.
        """
        for name in (
            "epochs",
            "batch_size",
            "window_blocks",
            "checkpoint_epochs",
            "keep_checkpoints",
            "log_steps",
            "knn_epochs",
            "accumulate",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0 and below 2^63.")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be at least 0, or none.")
        self.mask.check(self.model.grid_size)
        if self.views is not None and self.views < 1:
            raise ConfigError(f"views is {self.views}; it must be at least 1, or none for all.")
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ConfigError(f"checkpoint_steps is {self.checkpoint_steps}; it must be at least 1, or none.")
        if not 0 <= self.student_jitter < 1:
            raise ConfigError(f"student_jitter is {self.student_jitter}; it must be at least 0 and below 1.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must lie between 0 and 1, or be none.")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"A batch of {self.batch_size} images is not cut into {self.accumulate} equal parts.")
        if self.model.regressor_depth == 0 and self.loss.masked_weight:
            raise ConfigError(
                "Without a regressor (model.regressor_depth = 0) nothing predicts the masked patches, and "
                f"loss.masked_weight is {self.loss.masked_weight}. Give loss.masked_weight=0 with it."
            )


TINY_300E = PretrainRecipe(model=SIZES["tiny"], mask=MaskSettings(count=30))
"""CAE v2 tiny, 300 epochs (2211.09799). 3.2 GMAC an image and step, 5.7 M parameters. The published script: 8 GPUs of
256 images each."""

SMALL_300E = PretrainRecipe(model=SIZES["small"], mask=MaskSettings(count=49))
"""CAE v2 small, 300 epochs (2211.09799). 10.7 GMAC an image and step, 23.6 M parameters."""

BASE_300E = PretrainRecipe(model=SIZES["base"], mask=MaskSettings(count=98))
"""CAE v2 base, 300 epochs (2211.09799). 36.4 GMAC an image and step, 114 M parameters."""

LARGE_300E = PretrainRecipe(model=SIZES["large"], mask=MaskSettings(count=98))
"""CAE v2 large, 300 epochs. No script was published: mask and schedule are those of base, sizes are documented choices.
110 GMAC an image and step."""


def _shorter(recipe: PretrainRecipe, epochs: int, warmup_epochs: float) -> PretrainRecipe:
    optimizer = dataclasses.replace(recipe.optimizer, warmup_epochs=warmup_epochs)
    return dataclasses.replace(recipe, epochs=epochs, optimizer=optimizer)


TINY_100E, SMALL_100E, BASE_100E = (_shorter(one, 100, 5.0) for one in (TINY_300E, SMALL_300E, BASE_300E))
"""A third of the published epochs and half of their warm-up, all else as published: for ablations. Not published."""

DEMO = PretrainRecipe(
    model=ModelSettings(
        image_px=64,
        patch_px=8,
        width=128,
        depth=4,
        heads=4,
        regressor_width=128,
        regressor_depth=1,
        regressor_heads=4,
        target_width=128,
        drop_path=0.0,
    ),
    mask=MaskSettings(count=16, min_block_patches=4),
    optimizer=OptimizerSettings(lr=2e-3, warmup_epochs=0.54),
    epochs=11,
    batch_size=64,
    workers=0,  # on two cores a worker takes more from the step than it gives: 287 against 306 images/s
)
"""The built-in scenes: 1.0 M parameters, about four minutes on two CPU cores for 6,000 scenes."""

STUDY = dataclasses.replace(
    DEMO,
    model=dataclasses.replace(DEMO.model, width=64, regressor_width=64),
    optimizer=OptimizerSettings(lr=2.5e-3, warmup_epochs=2.0),
    epochs=16,
    batch_size=25,
    checkpoint_epochs=4,
    knn_epochs=4,
    compile=False,  # 960 small steps do not earn back what a GPU's compiler takes
)
"""Ablations on the built-in study (`caev2 demo --study`), many runs on few cores: each of sixteen views of 1,500 scenes
is seen once, in 960 steps. A minute of one core, probes included. Two seeds on 5,000 scenes: kNN 60 and 59 %, linear
probe 72 and 72 % (random start: 11 and 23 %), so there is room above and below. At 4e-3 with one epoch of warm-up they
were 58 and 51 %, 72 and 69 %, which is too far apart for two seeds to tell anything."""

RECIPES = {
    "tiny-300e": TINY_300E,
    "small-300e": SMALL_300E,
    "base-300e": BASE_300E,
    "large-300e": LARGE_300E,
    "tiny-100e": TINY_100E,
    "small-100e": SMALL_100E,
    "base-100e": BASE_100E,
    "demo": DEMO,
    "study": STUDY,
}
