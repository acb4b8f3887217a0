"""Small images in classes, small grids, and running them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from caev2.ablate.engines.engine import Relay
from caev2.ablate.finding import Judging
from caev2.ablate.grid_files import grid_of
from caev2.ablate.grids import Grid
from caev2.ablate.one_run import perform
from caev2.ablate.outcome import GridOutcome, read_outcome
from caev2.ablate.plan import Plan, make_plan
from caev2.ablate.running import AblationResult, ablate
from caev2.pretrain.telling.log import read_log

TINY = {
    "epochs": 2, "batch_size": 4, "checkpoint_steps": 1, "log_steps": 1,
    "model": {"depth": 1, "width": 24, "heads": 2, "regressor_width": 24, "regressor_heads": 2},
}  # fmt: skip
STEPS = 6
"""Of a tiny run: twelve images, two epochs."""


def make_labelled(folder: Path) -> Path:
    """Two classes: twelve training and six validation images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for number in range(count):
            place = folder / split / f"class-{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = random.integers(0, 255, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((80, 70), Image.Resampling.BICUBIC).save(place / f"{number}.png")
    return folder


def grid(name: str = "small", **content: Any) -> Grid:
    """A grid over what is supervised, unless it is said otherwise."""
    axes = [{"name": "tokens", "value": [{"name": "both"}, {"name": "visible", "set": {"loss": {"masked_weight": 0}}}]}]
    given = {"recipe": "demo", "seeds": [0], "evaluations": ["knn"], "axis": axes, **content}
    return grid_of(name, {**given, "set": {**TINY, **given.get("set", {})}})


def plan(made: Path, *grids: Grid, **options: Any) -> Plan:
    return make_plan(made / "study", grids, images=made / "images", **options)


class Here:
    """One run after another in this process, which spares tests the start of another; what it refuses is an error."""

    device = "cpu"

    def work_off(self, works, told):
        for work in works:
            assert perform(work, self.device, Relay(work, told))
            told.finished(work)


def run_grids(made: Path, out: Path, *grids: Grid, engine: Any = None, **options: Any) -> AblationResult:
    images = made / "images"
    return ablate(plan(made, *grids), out, Judging.by(images), engine or Here(), images=images, **options)


def outcome_of(out: Path, name: str = "small") -> GridOutcome:
    return read_outcome(out / name)


def outcome_bytes(out: Path, name: str = "small") -> bytes:
    return (out / name / "outcome.json").read_bytes()


def runs_of(out: Path) -> dict[str, list[int]]:
    """Steps in the log of each run."""
    return {
        run.name: [record["step"] for record in read_log(run) if "loss" in record]
        for run in sorted((out / "runs").iterdir())
    }


def results_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in (run / "results").glob("*.json")]
