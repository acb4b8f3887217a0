"""Made-up outcomes: the given values in the given variants, and run folders with the logs that such runs leave."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caev2.ablate.outcome import Axis, GridOutcome, RunOutcome, Score
from caev2.ablate.stored import StoredTarget
from caev2.recipe import fingerprint

RECIPE: dict[str, Any] = {
    "epochs": 4,
    "target": "projected",
    "views": None,
    "optimizer": {"lr": 2e-3, "betas": [0.9, 0.999]},
    "mask": {"kind": "block", "count": 16},
    "loss": {"distance": "cosine", "visible_weight": 1.0},
}
Values = Mapping[str, Sequence[float]]


def variant_of(axes: Mapping[str, Sequence[str]], place: Sequence[str]) -> str:
    return ",".join(f"{name}={value}" for name, value in zip(axes, place, strict=True))


def make_outcome(
    axes: Mapping[str, Sequence[str]],
    values: Mapping[tuple[str, ...], Values],
    *,
    grid: str = "supervision",
    title: str = "Which tokens are supervised",
    claim: str = "Supervising visible tokens matters more than supervising masked ones.",
    source: str = "Zhang et al. (2211.09799), table 1",
    quick: bool = True,
    seeds: Sequence[int] = (0, 1),
    failures: Mapping[tuple[tuple[str, ...], int], str] | None = None,
    recipes: Mapping[tuple[str, ...], Mapping[str, Any]] | None = None,
    stores: Mapping[tuple[str, ...], str | None] | None = None,
    val_images: int | None = 5000,
    targets: Sequence[StoredTarget] = (),
) -> GridOutcome:
    """A grid of the given axes, each with its baseline first; values by metric, one for each seed."""
    runs = [
        _run(
            grid, variant_of(axes, place), dict(zip(axes, place, strict=True)), seed,
            {metric: numbers[number] for metric, numbers in values.get(place, {}).items()},
            (failures or {}).get((place, seed)), (recipes or {}).get(place, {}), (stores or {}).get(place, "full"),
        )
        for place in itertools.product(*axes.values()) for number, seed in enumerate(seeds)
    ]  # fmt: skip
    return GridOutcome(
        grid=grid, title=title, claim=claim, source=source, quick=quick, seeds=tuple(seeds), runs=tuple(runs),
        axes=tuple(Axis(name=name, values=tuple(names), baseline=names[0]) for name, names in axes.items()),
        baseline=variant_of(axes, [names[0] for names in axes.values()]), val_images=val_images,
        targets=tuple(targets), metrics=tuple(dict.fromkeys(metric for by_metric in values.values() for metric in by_metric)),
    )  # fmt: skip


def _run(grid, variant, settings, seed, values, failure, recipe, store) -> RunOutcome:
    scores = {} if failure else {metric: _score(metric, value) for metric, value in values.items()}
    return RunOutcome(
        name=f"{grid}/{variant}/seed={seed}", variant=variant, seed=seed, settings=settings, store=store,
        fingerprint=fingerprint([variant, seed]), recipe={**RECIPE, "seed": seed, **recipe}, scores=scores, failure=failure,
    )  # fmt: skip


def _score(metric: str, value: float) -> Score:
    if metric not in ("knn", "linear"):
        return Score(value=value)
    reach = 1.96 * math.sqrt(value * (1 - value) / 5000)
    return Score(value=value, low=value - reach, high=value + reach)


def supervision(**changes: Any) -> GridOutcome:
    """Three variants, two seeds; visible alone is much worse, masked alone a little."""
    values = {
        ("both",): {"knn": (0.520, 0.530), "linear": (0.610, 0.604), "loss": (0.20, 0.21), "cosine_masked": (0.81, 0.80)},
        ("visible",): {"knn": (0.400, 0.404), "linear": (0.600, 0.606), "loss": (0.10, 0.11), "cosine_masked": (0.02, 0.01)},
        ("masked",): {"knn": (0.510, 0.519), "linear": (0.601, 0.596), "loss": (0.22, 0.23), "cosine_masked": (0.79, 0.78)},
    }  # fmt: skip
    recipes = {
        ("visible",): {"loss": {"distance": "cosine", "visible_weight": 1.0, "masked_weight": 0.0}},
        ("masked",): {"loss": {"distance": "cosine", "visible_weight": 0.0}},
    }
    return make_outcome({"tokens": ("both", "visible", "masked")}, values, **{"recipes": recipes, **changes})


def views(**changes: Any) -> GridOutcome:
    """A numeric axis in powers of two, and one value that is no number."""
    names = ("16", "1", "2", "4", "8", "fresh")
    knn = (0.55, 0.43, 0.48, 0.52, 0.545, 0.556)
    values = {
        (name,): {"knn": (value, value + 0.01 + 0.002 * (place % 3)), "cosine_masked": (0.8 + place / 100, 0.8)}
        for place, (name, value) in enumerate(zip(names, knn, strict=True))
    }
    about = {"grid": "views", "title": "How many stored views", "claim": "", "source": "ours"}
    return make_outcome({"views": names}, values, **{**about, "stores": {("fresh",): None}, **changes})


def averages(**changes: Any) -> GridOutcome:
    """Two axes, one of them numeric."""
    counts, ways = ("16", "32", "48"), ("token_mean", "group_mean")
    values = {
        (count, way): {"knn": (0.5 + 0.02 * a - 0.03 * b, 0.51 + 0.023 * a - 0.031 * b), "loss": (0.2, 0.21)}
        for a, count in enumerate(counts) for b, way in enumerate(ways)
    }  # fmt: skip
    about = {"grid": "averages", "title": "How kinds of token are averaged", "source": "ours"}
    return make_outcome({"mask": counts, "average": ways}, values, **{**about, **changes})


def write_logs(outcome: GridOutcome, out: Path, *, steps: int = 40, judged: bool = True) -> None:
    """Folders `out/runs/FINGERPRINT` with the logs that finished runs leave."""
    for place, run in enumerate(outcome.runs):
        if run.failure is not None:
            continue
        folder = out / "runs" / run.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line for step in range(steps) for line in _lines(step, steps, place, run, judged)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _lines(step: int, steps: int, place: int, run: RunOutcome, judged: bool) -> list[dict[str, Any]]:
    epochs, done = run.recipe["epochs"], (step + 1) / steps
    about = {"step": step, "epoch": step * epochs // steps}
    rise = (1 - math.exp(-4 * done)) * (0.9 - 0.02 * place) + 0.01 * math.sin(7 * step + place)
    cosines = {"cosine_class": rise, "cosine_visible": rise, "cosine_masked": None if place == 2 else 0.8 * rise}
    found = [{**about, "loss": 1 - rise, **cosines, "applied": True}]
    if judged and (step + 1) % (steps // epochs) == 0:
        found.append({**about, "knn_percent": round(50 * rise, 2)})
    return found
