"""This package's engine, as a benchmark drives it."""

from collections.abc import Callable

from caev2.pretrain.learning.step import Inputs, Objective, StepFigures, TrainStep
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.student.model import build
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.supply.batches import Batch

from .plain_loop import LR
from .setting import Setting


class Engine:
    """One student and its optimiser, trained on by steps that differ in where latents come from."""

    def __init__(self, recipe: PretrainRecipe, setting: Setting):
        self.recipe, self.setting = recipe, setting
        self.student = build(recipe.model, recipe.seed).to(setting.device)
        self.optimizer = adamw(self.student, weight_decay=recipe.optimizer.weight_decay, betas=recipe.optimizer.betas)

    def step(self, inputs: Inputs) -> Callable[[Batch], StepFigures]:
        """A step on batches that lie on the device; nothing waits for it."""
        step = TrainStep(
            Objective(self.student, precision=self.setting.precision),
            self.optimizer,
            inputs,
            clip_norm=self.recipe.optimizer.clip_norm,
            compiled=self.setting.compiled,
        )
        return lambda batch: step(batch, LR)
