"""Grids → runs → outcomes: what is not done is done, and each grid's `outcome.json` says what came of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.checks import refuse_missing_teachers, warn_of_missing_curves
from caev2.ablate.engines.engine import Engine
from caev2.ablate.expansion import GridRun
from caev2.ablate.finding import Judging, final_scores
from caev2.ablate.grids import Grid
from caev2.ablate.one_run import Work
from caev2.ablate.outcome import Axis, GridOutcome, RunOutcome, write_outcome
from caev2.ablate.plan import RUNS, Plan, PlannedRun, state_of
from caev2.ablate.replaced import refuse_other_forms, warn_of_other_numbers
from caev2.ablate.stored import StoredTarget, stored_targets
from caev2.ablate.telling import Teller
from caev2.errors import ConfigError
from caev2.progress import Progress, Silent
from caev2.recipe import to_mapping
from caev2.store.disk import writing
from caev2.store.images import Place

UNDONE = "not done yet: the command was interrupted, and the same one goes on"
"""Why a run has no scores that nobody has tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationResult:
    """What a command ended with."""

    outcomes: tuple[GridOutcome, ...]
    runs: int
    """Different ones, over all grids."""
    computed: int
    """Of them, those that were trained or judged now, to the end."""
    failures: Mapping[str, str]
    """By name of a run, why it has no numbers."""


def ablate(
    plan: Plan,
    out: Path,
    judging: Judging,
    engine: Engine,
    *,
    images: Place | None = None,
    teacher: str | None = None,
    progress: Progress | None = None,
) -> AblationResult:
    """Do what is not done of a plan, and write each grid's outcome, also where it is interrupted.

    Args:
        plan: What is wanted.
        out: Gets `runs/` and a folder for each grid.
        judging: Which images judge the runs.
        engine: Who does the work.
        images: What the stores were extracted from.
        teacher: Where the weights of live teachers lie, if not where they are looked for.
        progress: Who is told.

    Raises:
        ConfigError: A store is missing, or images are needed and not given, or `out` has another form of a grid.
        TeacherError: A live teacher is not found.
        OutputError: `out` cannot be written.
        Interrupted: A signal asked to leave.
    """
    plan.refuse_missing()
    refuse_other_forms(plan.grids, out)
    _refuse_no_images(plan, images)
    states = {word: state_of(run, out, judging) for word, run in plan.runs.items()}
    works = [
        _work(run, plan, out, images, judging, teacher) for word, run in plan.runs.items() if not states[word].is_done
    ]
    refuse_missing_teachers(works)
    targets = {grid.name: _targets(plan, grid) for grid in plan.grids}
    for grid in plan.grids:
        warn_of_other_numbers(grid, out, plan.overrides, targets[grid.name], (progress or Silent()).warn)
    teller = Teller(progress or Silent(), states, len(works), judging)
    warn_of_missing_curves(plan.runs, states, out, teller.warn)
    with writing(out):
        (out / RUNS).mkdir(parents=True, exist_ok=True)
    teller.begin()
    try:
        if works:
            engine.work_off(works, teller)
    finally:
        teller.end()
        apart = judging.images != images
        outcomes = tuple(
            _outcome(grid, plan, out, judging, teller.failures, targets[grid.name], apart=apart) for grid in plan.grids
        )
        for outcome in outcomes:
            _write(outcome, out)
    return AblationResult(
        outcomes=outcomes,
        runs=len(plan.runs),
        computed=teller.done,
        failures={plan.runs[word].names[0]: why for word, why in teller.failures.items()},
    )


def _refuse_no_images(plan: Plan, images: Place | None) -> None:
    if images is not None:
        return
    for run in plan.runs.values():
        if plan.study[run.store].manifest.spec.crops is None:
            raise ConfigError(
                f"{plan.study[run.store].path} keeps no crops, so {run.names[0]} needs the images: give --images, what "
                "it was extracted from."
            )


def _work(run: PlannedRun, plan: Plan, out: Path, images: Place | None, judging: Judging, teacher: str | None) -> Work:
    return Work(
        planned=run,
        folder=out / RUNS / run.fingerprint,
        store=plan.study.path / run.store,
        images=images,
        judging=judging,
        teacher=teacher,
    )


def _targets(plan: Plan, grid: Grid) -> tuple[StoredTarget, ...]:
    """What a grid's runs learn from, as far as it is stored."""
    return stored_targets(
        ((run.store, run.recipe.target) for run, _ in plan.by_grid[grid.name] if run.online is None), plan.study.stores
    )


def _outcome(
    grid: Grid,
    plan: Plan,
    out: Path,
    judging: Judging,
    failures: Mapping[str, str],
    targets: tuple[StoredTarget, ...],
    *,
    apart: bool,
) -> GridOutcome:
    found = ((run, plan.runs[word]) for run, word in plan.by_grid[grid.name] if word is not None)
    return GridOutcome(
        grid=grid.name,
        title=grid.title or grid.name,
        claim=grid.claim,
        source=grid.source,
        quick=grid.quick,
        axes=tuple(
            Axis(name=axis.name, values=tuple(value.name for value in axis.values), baseline=axis.baseline)
            for axis in grid.axes
        ),
        baseline=grid.baseline,
        metrics=grid.shown_metrics,
        seeds=grid.seeds,
        runs=tuple(_run_outcome(grid, run, planned, out, judging, failures) for run, planned in found),
        val_images=judging.val_images,
        classes=judging.classes,
        recipe=Path(grid.recipe).name,
        overrides=dict(plan.overrides),
        built_in=_is_built_in(grid),
        judged_apart=apart,
        targets=targets,
    )


def _is_built_in(grid: Grid) -> bool:
    """Whether its name says all of it but the seeds."""
    known = built_in_grids(quick=grid.quick).get(grid.name)
    return known is not None and dataclasses.replace(known, seeds=grid.seeds) == grid


def _run_outcome(
    grid: Grid, run: GridRun, planned: PlannedRun, out: Path, judging: Judging, failures: Mapping[str, str]
) -> RunOutcome:
    scores = final_scores(out / RUNS / planned.fingerprint, judging, grid.evaluations, planned.steps)
    return RunOutcome(
        name=run.name,
        variant=run.variant,
        seed=run.seed,
        fingerprint=planned.fingerprint,
        settings=dict(run.values),
        recipe=to_mapping(planned.recipe),
        store=None if planned.online else planned.store,
        scores=scores,
        failure=None if scores else failures.get(planned.fingerprint, UNDONE),
    )


def _write(outcome: GridOutcome, out: Path) -> None:
    folder = out / outcome.grid
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_outcome(outcome, folder)
