"""The learning rate as a function of the step."""

import math
from dataclasses import dataclass

from caev2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineSchedule:
    """Linear from 0 to the peak, then half a cosine down to the minimum."""

    peak_lr: float
    """Learning rate at the end of the warm-up; absolute, not scaled by the batch."""
    min_lr: float
    """Learning rate that the end of training approaches."""
    warmup_steps: int
    """Steps of the warm-up; the first has learning rate 0, the last the peak."""
    total_steps: int
    """Steps of the whole training, warm-up included."""

    def __post_init__(self):
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ConfigError(
                f"A warm-up of {self.warmup_steps} steps does not fit into a training of {self.total_steps}. "
                "Shorten the warm-up or train longer."
            )
        if not 0 <= self.min_lr <= self.peak_lr:
            raise ConfigError(
                f"The learning rate cannot fall from {self.peak_lr} to {self.min_lr}. "
                "Give a minimum between 0 and the peak."
            )

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0; after the last step, the minimum."""
        if step < self.warmup_steps:
            return self.peak_lr * step / max(1, self.warmup_steps - 1)
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        return self.min_lr + 0.5 * (self.peak_lr - self.min_lr) * (1 + math.cos(math.pi * progress))
