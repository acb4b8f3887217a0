"""A few real training steps on made-up data, timed: what a device does in a second, before a run begins.

Left out is what the device does not do, reading and cropping, which run beside it; and compilation, which takes
minutes and makes steps faster.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from caev2.pretrain.foresight.cost import TrainingMemory
from caev2.pretrain.learning.decode import TargetDecoder
from caev2.pretrain.learning.step import Objective, StoredInputs, TrainStep, tensor_cores
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.student.model import branch_rates, build
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.supply.batches import Batch

BUDGET_S = 20.0
"""About so long a rehearsal may take; two steps with a single image are taken however long they last."""
_MEASURED_S = 4.0  # of steps that are timed, if there is time for that
_STEPS_MOST = 20  # of them
_STEPS_LEAST = 3  # a batch is not doubled where no time would be left for so many
_MEMORY_SHARE = 0.7  # of what is free may be used, by the estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What was timed."""

    batch_size: int
    """Images that went through the student at once."""
    seconds: tuple[float, ...]
    """Of each step that counts; there were others before them, to warm up."""

    @property
    def images(self) -> int:
        """In all the steps that count."""
        return self.batch_size * len(self.seconds)

    @property
    def images_per_s(self) -> float:
        """Of the median step."""
        return self.batch_size / statistics.median(self.seconds)

    @property
    def images_per_s_range(self) -> tuple[float, float]:
        """Of the slowest and of the quickest step."""
        return self.batch_size / max(self.seconds), self.batch_size / min(self.seconds)


def rehearse(
    recipe: PretrainRecipe,
    precision: str,
    device: str,
    memory: TrainingMemory,
    free_bytes: int,
    *,
    most: int,
    budget_s: float = BUDGET_S,
) -> Rehearsal | None:
    """Train on made-up images for some seconds; none if there is no memory for a single image.

    The batch is doubled while time and memory allow it, since devices are faster with more
    images at once.

    Args:
        recipe: Sizes, with the head as wide as the target.
        precision: `bf16` or `fp32`.
        device: Where.
        memory: What training is estimated to take.
        free_bytes: Memory that is free there.
        most: Images at once, at most: as the run has them.
        budget_s: About so long it may take.
    """
    end = time.perf_counter() + budget_s

    def fits(size: int) -> bool:
        return memory.of_batch(size) <= _MEMORY_SHARE * free_bytes

    size = 1
    if not fits(size):
        return None
    with tensor_cores(device):
        step = _step(recipe, precision, device)
        while True:
            timed = _timer(step, made_up_batch(recipe, size).to(device))
            timed()  # the first of its shape
            last = timed()
            larger = min(2 * size, most)
            # it needs two steps to warm up, and some that count
            if larger == size or not fits(larger) or time.perf_counter() + 2 * last * (2 + _STEPS_LEAST) > end:
                return Rehearsal(batch_size=size, seconds=_measure(timed, last, end))
            size = larger


def _measure(timed: Callable[[], float], last: float, end: float) -> tuple[float, ...]:
    """Step times, of which one is known, until there are enough or the time is over."""
    seconds = [last]
    while len(seconds) < _STEPS_MOST and sum(seconds) < _MEASURED_S and time.perf_counter() + min(seconds) < end:
        seconds.append(timed())
    return tuple(seconds)


def _step(recipe: PretrainRecipe, precision: str, device: str) -> TrainStep:
    """The step of the run, but for accumulation and compilation."""
    student = build(recipe.model, recipe.seed).to(device)
    if recipe.recompute_activations:
        student.recompute_activations()
    optimizer = adamw(student, weight_decay=recipe.optimizer.weight_decay, betas=recipe.optimizer.betas)
    decoder = TargetDecoder(None, tokens=recipe.model.patches + 1).to(device)
    return TrainStep(
        Objective(student, precision=precision), optimizer, StoredInputs(decoder), clip_norm=recipe.optimizer.clip_norm
    )


def _timer(step: TrainStep, batch: Batch) -> Callable[[], float]:
    def timed() -> float:
        begun = time.perf_counter()
        float(step(batch, 1e-6).loss)  # waits for the device, whose next step cannot begin before
        if batch.crops.is_cuda:
            torch.cuda.synchronize(batch.crops.device)
        return time.perf_counter() - begun

    return timed


def made_up_batch(recipe: PretrainRecipe, images: int) -> Batch:
    """Random pixels, latents, masks and drops of a recipe's shapes; a function of the recipe's seed."""
    model, random = recipe.model, torch.Generator().manual_seed(recipe.seed)
    order = torch.rand((images, model.patches), generator=random).argsort(dim=1)
    rates = torch.tensor(branch_rates(model))
    pixels = (images, model.image_px, model.image_px, 3)
    return Batch(
        step=0,
        epoch=0,
        view=0,
        rows=torch.arange(images),
        crops=torch.randint(0, 256, pixels, dtype=torch.uint8, generator=random),
        targets=torch.randn((images, model.patches + 1, model.target_width), generator=random),
        visible=order[:, recipe.mask.count :].sort(dim=1).values,
        masked=order[:, : recipe.mask.count].sort(dim=1).values,
        keep=torch.rand((len(rates), images), generator=random) >= rates[:, None] if any(rates) else None,
        drifted=None,
    )
