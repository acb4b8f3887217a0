"""The folder of an ablation as the command leaves it, with made-up numbers."""

import dataclasses
import json
from pathlib import Path

from caev2.ablate.finding import scores_of
from caev2.ablate.outcome import Axis, GridOutcome, RunOutcome, Score, write_outcome
from caev2.ablate.stored import StoredTarget
from caev2.eval.interval import wilson
from caev2.eval.probes.protocols import ProbeSettings, settings_of
from caev2.eval.result import save_result
from caev2.pretrain.identity import RunIdentity, claim_run
from caev2.pretrain.recipes import DEMO
from caev2.store.codecs.quality import Quality
from tests.report.made_up import (
    CLASSES,
    VAL,
    facts_of,
    identity_of,
    judged_as,
    make_checkpoint,
    make_picture,
    manifest_of,
    probe_result,
    quality_of_codec,
)


def stored(store: str = "views", codec: str = "lloyd4", quality: Quality | None = None) -> StoredTarget:
    """The target that every run of the study learned from."""
    manifest = manifest_of(codec)
    return StoredTarget(
        store=store, digest=manifest.root_digest or "", target="projected", codec=codec, images=manifest.images, views=manifest.views,
        row_bytes=manifest.spec.targets["projected"].row_bytes, quality=quality or quality_of_codec(),
    )  # fmt: skip


GRID = {
    "both": {"knn": (0.520, 0.530, 0.525), "linear": (0.610, 0.604, 0.607), "cosine_masked": (0.81, 0.80, 0.81)},
    "visible": {"knn": (0.400, 0.404, 0.409), "linear": (0.600, 0.611, 0.603), "cosine_masked": (0.02, 0.01, 0.02)},
    "masked": {"knn": (0.510, 0.519, 0.512), "linear": (0.598, 0.596, 0.595), "cosine_masked": (0.79, 0.78, 0.79)},
}
WEIGHTS = {"both": {}, "visible": {"masked_weight": 0.0}, "masked": {"visible_weight": 0.0}}


def makejudged_as(folder: Path, identity: RunIdentity, numbers: dict[str, float]) -> None:
    """A run of a grid, whose student has these accuracies and whose log ends with this cosine."""
    folder.mkdir(parents=True)
    claim_run(folder, identity)
    student = judged_as("student", 2, CLASSES)
    accuracy = {
        name: dataclasses.replace(wilson(round(numbers[name] * VAL), VAL), value=numbers[name])
        for name in ("knn", "linear")
    }
    student = dataclasses.replace(
        student, accuracy=accuracy, draws={}, per_class={name: student.per_class[name] for name in accuracy}
    )
    facts = facts_of(identity, make_checkpoint(folder, identity, 10), 10)
    save_result(
        probe_result(facts, subjects=(student,), settings=settings_of(("knn", "linear"), ProbeSettings())), folder
    )
    record = {"step": 9, "epoch": 0, "loss": 0.5, "cosine_masked": numbers["cosine_masked"], "images_per_s": 100.0}
    (folder / "log.jsonl").write_text(json.dumps(record) + "\n")


def scores_made(folder: Path) -> dict[str, Score]:
    """What `caev2 ablate` reads of such a run."""
    found = scores_of(folder, json.loads((folder / "result.json").read_text()), ("knn", "linear"))
    return {name: score for name, score in found.items() if name != "loss"}


def make_study(out: Path, grid: str = "supervision", *, failing: str | None = None) -> GridOutcome:
    """The folder of `caev2 ablate` with one grid of three variants and three seeds, and its runs."""
    runs = []
    for variant, metrics in GRID.items():
        for seed in range(3):
            loss = dataclasses.replace(DEMO.loss, **WEIGHTS[variant])
            recipe = dataclasses.replace(DEMO, loss=loss, seed=seed, epochs=3)
            identity = identity_of(recipe)
            folder = out / "runs" / identity.fingerprint()
            if not folder.exists():
                makejudged_as(folder, identity, {name: values[seed] for name, values in metrics.items()})
            failed = failing if variant == "masked" and seed == 2 else None
            scores = {} if failed else scores_made(folder)
            runs.append(
                RunOutcome(
                    name=f"{grid}/tokens={variant}/seed={seed}",
                    variant=f"tokens={variant}",
                    seed=seed,
                    store="views",
                    fingerprint=identity.fingerprint(),
                    settings={"tokens": variant},
                    recipe=identity.recipe,
                    scores=scores,
                    failure=failed,
                )
            )
    outcome = GridOutcome(
        grid=grid, title="Which tokens are supervised", quick=True, seeds=(0, 1, 2), runs=tuple(runs), val_images=VAL,
        claim="Supervising visible tokens matters more than supervising masked ones.",
        source="Zhang et al. (2211.09799), table 1", baseline="tokens=both", metrics=("knn", "linear", "cosine_masked"),
        axes=(Axis(name="tokens", values=tuple(GRID), baseline="both"),), targets=(stored(),),
    )  # fmt: skip
    make_picture(out / grid / "curves.png", 1100, 420)
    write_outcome(outcome, out / grid)
    return outcome
