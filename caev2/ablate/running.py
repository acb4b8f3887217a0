"""Grids → runs → outcomes: what is not done is done, and each grid's `outcome.json` says what came of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.checks import refuse_missing_teachers, warn_of_missing_curves
from caev2.ablate.engines.engine import Engine
from caev2.ablate.expansion import GridRun
from caev2.ablate.finding import Judging, find_result, scores_of
from caev2.ablate.grids import LOGGED, Grid
from caev2.ablate.one_run import Work
from caev2.ablate.outcome import Axis, GridOutcome, RunOutcome, Score, write_outcome
from caev2.ablate.plan import RUNS, Plan, PlannedRun, State, refuse_other_forms, state_of
from caev2.ablate.stored import StoredTarget, stored_targets
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
    """Of them, those that were trained or judged now."""
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
    teller = _Teller(progress or Silent(), states, len(works), judging)
    warn_of_missing_curves(plan.runs, states, out, teller.warn)
    with writing(out):
        (out / RUNS).mkdir(parents=True, exist_ok=True)
    teller.begin()
    try:
        if works:
            engine.work_off(works, teller)
    finally:
        teller.end()
        apart = images is not None and judging.images != images
        outcomes = tuple(
            _outcome(grid, plan, out, judging, teller.failures, targets[grid.name], apart=apart) for grid in plan.grids
        )
        for outcome in outcomes:
            _write(outcome, out)
    return AblationResult(
        outcomes=outcomes,
        runs=len(plan.runs),
        computed=len(works),
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


@dataclass(slots=True)
class _Teller:
    """Tells how far all runs together are, and remembers those that failed."""

    progress: Progress
    states: Mapping[str, State]
    works: int
    judging: Judging
    ended: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """By fingerprint."""

    def begin(self) -> None:
        """One bar for all, in steps of training."""
        done, total = (sum(getattr(one, name) for one in self.states.values()) for name in ("steps", "total"))
        there = len(self.states) - self.works
        if there:
            self.progress.say(f"ablate: {there} of {len(self.states)} runs are there already")
        if self.works:
            self.progress.start("ablate", total, done)

    def trained(self, work: Work, steps: int) -> None:
        """Steps of any run."""
        del work
        self.progress.advance(steps, runs_left=self.works - self.ended)

    def finished(self, work: Work) -> None:
        """A line with the run's numbers."""
        scores = _scores(work.planned, work.folder, self.judging)
        if not scores:
            self.failed(work, "it came to its end, and its result is not there. Run the same command again.")
            return
        self._end(work)
        self.progress.say(f"{self._place()} {work.planned.names[0]}: {say_scores(scores)}")

    def failed(self, work: Work, why: str) -> None:
        """A line with the reason."""
        self._end(work)
        self.failures[work.planned.fingerprint] = why
        self.progress.say(f"{self._place()} {work.planned.names[0]} failed: {why}")

    def warn(self, message: str) -> None:
        """Pass it on."""
        self.progress.warn(message)

    def end(self) -> None:
        """Close the bar."""
        self.progress.finish()

    def _end(self, work: Work) -> None:
        del work
        self.ended += 1
        self.progress.advance(0, runs_left=self.works - self.ended)

    def _place(self) -> str:
        return f"[{self.ended}/{self.works}]"


def say_scores(scores: Mapping[str, Score]) -> str:
    """What the probes say of a run, in percent: `knn 63.2 (61.9-64.5), 5-shot 40.1`."""
    return ", ".join(f"{name} {_say(score)}" for name, score in scores.items() if name not in LOGGED)


def _say(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"


def _scores(run: PlannedRun, folder: Path, judging: Judging, kinds: Sequence[str] | None = None) -> dict[str, Score]:
    """What a finished run came to; nothing of one that is not finished."""
    kinds = run.kinds if kinds is None else kinds
    result = find_result(folder, judging, kinds, run.steps)
    return {} if result is None else scores_of(folder, result, kinds, run.steps)


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
        title=grid.title,
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
    scores = _scores(planned, out / RUNS / planned.fingerprint, judging, grid.evaluations)
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
