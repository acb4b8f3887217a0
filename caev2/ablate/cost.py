"""What is left to do of a plan, in steps and, where a rate is known, in hours."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from caev2.ablate.finding import images_per_s
from caev2.ablate.plan import RUNS, Plan, PlannedRun, State
from caev2.pretrain.foresight.cost import count_multiply_adds, estimate_memory
from caev2.pretrain.foresight.forecast import free_memory
from caev2.pretrain.foresight.rehearsal import rehearse
from caev2.pretrain.learning.lesson import precision_of

REHEARSAL_S = 6.0
"""So long steps are timed where no run is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is left to do."""

    runs: int
    """Different ones that are not done."""
    steps: int
    hours: float | None
    """Of training alone; none: nothing could be timed."""
    known_from: Literal["runs that are done", "some steps, timed", "nothing"]
    without_store: int
    """Runs, at most, whose store is missing: how many steps they have is not known, so no other number has them."""


def cost_of(plan: Plan, states: dict[str, State], out: Path, *, device: str, at_once: int, gpus: int = 1) -> Cost:
    """What a plan takes; nothing is written.

    Rates of different students are compared by their multiply-adds. Judging and a live teacher come on top. Runs that
    are done are taken to have been as many side by side; steps are timed on the whole of one device, which computes no
    more for being shared.

    Args:
        plan: What is wanted.
        states: How far each of its runs is.
        out: Where runs lie.
        device: Where runs are trained.
        at_once: How many, side by side.
        gpus: Over how many devices like `device`.
    """
    left = [run for word, run in plan.runs.items() if not states[word].is_done]
    work = sum((run.steps - states[run.fingerprint].steps) * _gmac_a_step(run) for run in left)
    steps = sum(run.steps - states[run.fingerprint].steps for run in left)
    rates = list(_rates((run for word, run in plan.runs.items() if states[word].is_done), out))
    if rates:
        rate, known_from = statistics.median(rates) * at_once, "runs that are done"
    elif left:
        rate, known_from = _rehearse(left[0], device), "some steps, timed"
        rate = None if rate is None else rate * gpus
    else:
        rate, known_from = None, "nothing"
    hours = None if rate is None else work / rate / 3600
    return Cost(
        runs=len(left),
        steps=steps,
        hours=hours,
        known_from=known_from if hours is not None else "nothing",
        without_store=plan.without_store,
    )


def _gmac_an_image(run: PlannedRun) -> float:
    return count_multiply_adds(run.recipe.model, run.recipe.mask.count).total / 1e9


def _gmac_a_step(run: PlannedRun) -> float:
    return run.recipe.batch_size * _gmac_an_image(run)


def _rates(runs: Iterable[PlannedRun], out: Path) -> Iterable[float]:
    """Of runs, in multiply-adds a second."""
    for run in runs:
        rate = images_per_s(out / RUNS / run.fingerprint)
        if rate is not None:
            yield rate * _gmac_an_image(run)


def _rehearse(run: PlannedRun, device: str) -> float | None:
    if device.startswith("cuda") and not torch.cuda.is_available():  # GPUs of a cluster, elsewhere
        return None
    recipe, precision = run.recipe, precision_of(run.recipe, device)
    memory = estimate_memory(
        recipe.model,
        recipe.mask.count,
        precision,
        recompute=recipe.recompute_activations,
        averaged=recipe.ema_decay is not None,
    )
    timed = rehearse(
        recipe,
        precision,
        device,
        memory,
        free_memory(device),
        most=recipe.batch_size // recipe.accumulate,
        budget_s=REHEARSAL_S,
    )
    return None if timed is None else timed.images_per_s * _gmac_an_image(run)
