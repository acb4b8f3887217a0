"""What fine-tuning can be told, and the built-in choices.

`tiny`, `small` and `base` are what the published scripts for ImageNet-1k end up with, which is not always what they
say: they overwrite RandAugment's strength, and colour jitter has no effect beside it. Learning rates are absolute, for
batches of 1,024 images.
"""

from dataclasses import dataclass
from typing import Literal

from caev2.errors import ConfigError
from caev2.pretrain.recipes import OptimizerSettings
from caev2.recipe import speed


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedModelSettings:
    """What of the model is decided by fine-tuning."""

    image_px: int | None = None
    """Side of the images; none: that of pre-training. Positions are computed anew for another one."""
    drop_path: float = 0.1
    """Probability of skipping a branch in the last block; rises linearly from 0 in the first."""
    position_bias: bool = True
    """Every block learns a bias of each head for each relative position, zero at first; published: on."""
    head_scale: float = 0.001
    """Factor on the fresh weights of the head."""

    def __post_init__(self):
        if self.image_px is not None and self.image_px < 1:
            raise ConfigError(f"model.image_px is {self.image_px}; it must be at least 1, or none.")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"model.drop_path is {self.drop_path}; it must be at least 0 and below 1.")
        if not self.head_scale > 0:
            raise ConfigError(f"model.head_scale is {self.head_scale}; it must be above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningOptimizerSettings(OptimizerSettings):
    """AdamW and its schedule, with a learning rate for each layer."""

    lr: float = 2e-4
    """Peak learning rate of the head, not scaled by the batch."""
    min_lr: float = 1e-6
    """Learning rate of the head at the end of the cosine."""
    warmup_epochs: float = 5.0
    """Linear rise from zero."""
    clip_norm: float | None = None
    """Largest norm of all gradients together; none, as published: they are not clipped."""
    layer_decay: float = 0.75
    """Each step down from the head multiplies the learning rate with it."""
    decay_position_bias: bool = True
    """Whether weight decay acts on the biases of relative positions; published: it does."""

    def __post_init__(self):
        # written out: with slots, super() without arguments looks for the class that was before them
        OptimizerSettings.__post_init__(self)
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optimizer.layer_decay is {self.layer_decay}; it must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSettings:
    """What is done to a training image, by timm's own transforms."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image that a crop covers."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    """RandAugment or AutoAugment, as timm spells them; none: neither."""
    color_jitter: float | None = None
    """Strength of brightness, contrast and saturation jitter, where there is no `auto_augment`."""
    erase: float = 0.25
    """Probability that a rectangle is replaced by noise."""

    def __post_init__(self):
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ConfigError(f"augmentation.crop_scale is {self.crop_scale}; give two shares of the image in order.")
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)}; it must be a probability.")
        if self.color_jitter is not None and self.auto_augment is not None:
            raise ConfigError(
                f"augmentation.color_jitter is {self.color_jitter} and augmentation.auto_augment is "
                f"{self.auto_augment!r}: beside that, timm does not jitter. Set one of them to none."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSettings:
    """Two images in one, and soft labels."""

    mixup: float = 0.8
    """Alpha of mixup (Zhang et al., 1710.09412); 0: off."""
    cutmix: float = 1.0
    """Alpha of CutMix (Yun et al., 1905.04899); 0: off. With both on, each is taken half of the time."""
    smoothing: float = 0.1
    """Share of a label that is spread over all classes."""
    images: int = 128
    """So many neighbours in a batch share one draw: those of one GPU, as published. Smaller batches share one."""

    def __post_init__(self):
        for name in ("mixup", "cutmix", "smoothing"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"mix.{name} is {getattr(self, name)}; it must be at least 0.")
        if self.smoothing >= 1:
            raise ConfigError(f"mix.smoothing is {self.smoothing}; it must be below 1.")
        if self.images < 2 or self.images % 2:
            raise ConfigError(f"mix.images is {self.images}; images are mixed in pairs, so give an even number.")

    @property
    def is_on(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneRecipe:
    """Everything about fine-tuning but the weights it starts from and the images."""

    model: TunedModelSettings = TunedModelSettings()
    """What is decided here of the model."""
    optimizer: TuningOptimizerSettings = TuningOptimizerSettings()
    """AdamW, its schedule, layer decay."""
    augmentation: AugmentationSettings = AugmentationSettings()
    """What is done to an image."""
    mix: MixSettings = MixSettings()
    """What is done to a batch, and to labels."""
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 1024
    """Images of a step, over all devices."""
    resize_px: int | None = None
    """Short side of an image that is judged, before its centre is cropped; none: 8/7 of the crop."""
    ema_decay: float | None = None
    """Keep a moving average of the weights, and judge it too, of which so much stays at each step; none: no average."""
    precision: Literal["fp32", "bf16"] | None = None
    """Autocast type; none: bf16 on a GPU, fp32 on a CPU."""
    seed: int = 0
    """The head's start, order, augmentation, mixing and drop path are functions of it."""
    accumulate: int = speed(1)
    """In how many parts a batch goes through the model, one after another, where it does not fit at once."""
    recompute_activations: bool = speed(False)
    """Keep only what goes into each block and compute the rest again for the gradient."""
    workers: int | None = speed(None)
    """Processes of each rank that read and augment images; 0: none but this one; none: the cores, for a GPU."""
    keep_checkpoints: int = speed(1)
    """How many of the latest checkpoints stay on disk; there is one after every epoch."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be at least 0, or none.")
        if self.resize_px is not None and self.resize_px < 1:
            raise ConfigError(f"resize_px is {self.resize_px}; it must be at least 1, or none.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must be between 0 and 1, or none.")


TINY = FinetuneRecipe(
    model=TunedModelSettings(drop_path=0.0),
    optimizer=TuningOptimizerSettings(lr=4e-3, layer_decay=0.85),
    mix=MixSettings(mixup=0.2, cutmix=0.0, smoothing=0.0),
)
"""ImageNet-1k, tiny, 100 epochs (2211.09799)."""

SMALL = FinetuneRecipe(optimizer=TuningOptimizerSettings(lr=4e-4, warmup_epochs=20.0), epochs=200)
"""ImageNet-1k, small, 200 epochs (2211.09799)."""

BASE = FinetuneRecipe()
"""ImageNet-1k, base, 100 epochs (2211.09799)."""

LARGE = FinetuneRecipe(
    model=TunedModelSettings(drop_path=0.2), optimizer=TuningOptimizerSettings(lr=2e-3), epochs=50, batch_size=4096
)
"""ImageNet-1k, large, 50 epochs: CAE v1's numbers, for no script of v2 was published."""

DEMO = FinetuneRecipe(
    model=TunedModelSettings(drop_path=0.0),
    optimizer=TuningOptimizerSettings(lr=1e-3, warmup_epochs=0.5),
    # digits: a flip makes another sign of them, and a small crop may show none
    augmentation=AugmentationSettings(crop_scale=(0.6, 1.0), flip=0.0, auto_augment=None, color_jitter=0.3, erase=0.0),
    mix=MixSettings(mixup=0.0, cutmix=0.0, smoothing=0.1),
    epochs=3,
    batch_size=64,
    resize_px=64,
    workers=0,
)
"""The built-in scenes, on two CPU cores."""

RECIPES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE, "demo": DEMO}
