"""What a run will take: arithmetic, memory, time and disk, found out before it begins."""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from caev2.pretrain.foresight.cost import (
    MultiplyAdds,
    TrainingMemory,
    count_multiply_adds,
    count_parameters,
    estimate_memory,
    mfu,
    peak_flops,
)
from caev2.pretrain.foresight.rehearsal import BUDGET_S, Rehearsal, rehearse
from caev2.pretrain.learning.lesson import precision_of, refuse_unequal_parts
from caev2.pretrain.plan import PretrainPlan, fit_recipe, plan
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.together.ranks import Ranks
from caev2.progress import Progress, Silent
from caev2.store.disk import free_bytes, say_bytes
from caev2.store.reader import Store

FEW_STEPS = 3
"""With fewer that were timed, nobody knows how noisy they are."""
NOISE = 0.1
"""Slowest and quickest step differ by more of the median than this: hours are a range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What was found out about a run that has not begun, on one device."""

    plan: PretrainPlan
    batch_size: int
    devices: int
    """That share each batch."""
    images_at_once: int
    """How many go through the student together on each; the others of a batch follow (`accumulate`)."""
    cost: MultiplyAdds
    device: str
    """Its name as torch gives it, or `cpu`."""
    precision: str
    peak_flops: float | None
    """None: not known of this device."""
    memory: TrainingMemory
    """Estimated."""
    free_memory_bytes: int
    """Of the device, at this moment."""
    checkpoint_bytes: int
    disk_bytes: int
    """Of all checkpoints that are kept, and the one that is being written."""
    free_disk_bytes: int
    rehearsal: Rehearsal | None
    """None: there is no memory for it."""

    @property
    def memory_bytes(self) -> int:
        """Estimated for the recipe's images at once."""
        return self.memory.of_batch(self.images_at_once)

    @property
    def steps_left(self) -> int:
        """Steps that the run has not done yet."""
        return self.plan.steps - self.plan.resume_step

    @property
    def mfu_percent(self) -> float | None:
        """Of the steps that were timed."""
        if self.rehearsal is None or self.peak_flops is None:
            return None
        return 100 * mfu(self.cost.total / 1e9, self.rehearsal.images_per_s, self.peak_flops)

    def hours(self) -> tuple[float, float, float] | None:
        """What is left at the rate of the quickest, the median and the slowest step that was timed, on all devices."""
        if self.rehearsal is None:
            return None
        slowest, quickest = self.rehearsal.images_per_s_range
        rates = (quickest, self.rehearsal.images_per_s, slowest)
        return tuple(self.steps_left * self.batch_size / (self.devices * rate) / 3600 for rate in rates)  # type: ignore[return-value]

    @property
    def is_noisy(self) -> bool:
        """Whether one number would say too much."""
        hours = self.hours()
        return hours is not None and hours[2] - hours[0] > NOISE * hours[1]


def forecast(
    recipe: PretrainRecipe,
    store: Store,
    run: Path,
    *,
    device: str,
    devices: int = 1,
    progress: Progress | None = None,
    budget_s: float = BUDGET_S,
) -> Forecast:
    """Plan a run, and time some steps of its student on a device; nothing is written.

    Args:
        recipe: Sizes, masks, schedule.
        store: Where the targets are.
        run: Folder that the run would have.
        device: Where to train, as torch spells it.
        devices: How many such devices will share each batch; one of them is timed.
        progress: Who is told what does not fit.
        budget_s: About so many seconds are spent on steps.

    Raises:
        Caev2Error: What the run itself would refuse about recipe and store.
    """
    progress = progress or Silent()
    refuse_unequal_parts(recipe, Ranks(count=devices))
    planned, recipe = plan(recipe, store, run), fit_recipe(recipe, store)
    precision = precision_of(recipe, device)
    memory = _memory(recipe, precision, recipe.recompute_activations)
    at_once = recipe.batch_size // (recipe.accumulate * devices)
    found = Forecast(
        plan=planned,
        batch_size=recipe.batch_size,
        devices=devices,
        images_at_once=at_once,
        cost=count_multiply_adds(recipe.model, recipe.mask.count),
        device=_name(device),
        precision=precision,
        peak_flops=peak_flops(_name(device)),
        memory=memory,
        free_memory_bytes=free_memory(device),
        checkpoint_bytes=(size := checkpoint_bytes(recipe)),
        disk_bytes=size * (recipe.keep_checkpoints + 1),
        free_disk_bytes=free_bytes(run),
        rehearsal=None,
    )
    _warn(found, recipe, progress)
    progress.say(f"pretrain: timing steps on {found.device}")
    timed = rehearse(recipe, precision, device, memory, found.free_memory_bytes, most=at_once, budget_s=budget_s)
    return dataclasses.replace(found, rehearsal=timed)


def _memory(recipe: PretrainRecipe, precision: str, recompute: bool) -> TrainingMemory:
    averaged = recipe.ema_decay is not None
    return estimate_memory(recipe.model, recipe.mask.count, precision, recompute=recompute, averaged=averaged)


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def free_memory(device: str) -> int:
    """Bytes that a device, or this machine, has free."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    known = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    available = known.get("MemAvailable")
    if available is not None:
        return 1024 * int(available.split()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def checkpoint_bytes(recipe: PretrainRecipe) -> int:
    """Size of a checkpoint: weights, AdamW's two moments, and the averaged weights where there are any."""
    with torch.device("meta"):
        weights = sum(tensor.nbytes for tensor in CAEv2(recipe.model).state_dict().values())
    return weights * (1 if recipe.ema_decay is None else 2) + 8 * count_parameters(recipe.model)


def _warn(found: Forecast, recipe: PretrainRecipe, progress: Progress) -> None:
    """Say what does not fit, and what to do about it."""
    if found.memory_bytes > found.free_memory_bytes:
        progress.warn(
            f"Training {found.images_at_once:,} images at once takes about {say_bytes(found.memory_bytes)}, and "
            f"{found.device} has {say_bytes(found.free_memory_bytes)} free. {advise(found, recipe)}"
        )
    if found.disk_bytes > found.free_disk_bytes:
        progress.warn(
            f"{recipe.keep_checkpoints} checkpoints and the one that is being written take "
            f"{say_bytes(found.disk_bytes)}, and the disk has {say_bytes(found.free_disk_bytes)} free. Make space, "
            "give another path, or keep fewer with --set keep_checkpoints=1."
        )


def advise(found: Forecast, recipe: PretrainRecipe) -> str:
    """How the recipe's batch fits, the same results in less memory; smaller parts first, since they cost no time."""
    free, recompute = found.free_memory_bytes, recipe.recompute_activations
    for recomputing in (False, True) if not recompute else (True,):
        memory = _memory(recipe, found.precision, recomputing)
        room = (free - memory.model_bytes) // memory.activation_bytes_per_image
        if room >= 1:
            also = " and --set recompute_activations=true" if recomputing and not recompute else ""
            return f"Give --set accumulate={_parts(recipe.batch_size // found.devices, room)}{also}."
    return f"Its weights, gradients and moments alone take {say_bytes(found.memory.model_bytes)}: take another device."


def _parts(batch_size: int, room: int) -> int:
    """The fewest equal parts of a batch that have no more images than there is room for."""
    least = math.ceil(batch_size / room)
    return next(parts for parts in range(least, batch_size + 1) if batch_size % parts == 0)
