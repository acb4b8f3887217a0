"""Which runs several grids come to, which of them are the same, which are done, and which stores are missing."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caev2.ablate.expansion import GridRun, expand
from caev2.ablate.finding import Judging, find_result, steps_trained
from caev2.ablate.grids import EVALUATIONS, Grid, Online
from caev2.ablate.lessons import know_run
from caev2.ablate.making import with_sources
from caev2.ablate.study import Study, command_for, is_store, open_study
from caev2.errors import Caev2Error, ConfigError, StoreMismatch
from caev2.pretrain.recipes import PretrainRecipe
from caev2.recipe import fingerprint, to_mapping
from caev2.store.images import Place

RUNS = "runs"
"""Where runs lie below OUT, each in a folder named by its fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A pre-training run, which one or more runs of grids are."""

    fingerprint: str
    recipe: PretrainRecipe
    """With its head as wide as the target."""
    store: str
    online: Online | None
    steps: int
    kinds: tuple[str, ...]
    """Kinds of `caev2 probe` that any of the grids asks for."""
    curves: bool
    """Whether any of them wants nearest neighbours on the way."""
    names: tuple[str, ...]
    """What grids call it; the first stands for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done for some grids on one study."""

    study: Study
    grids: tuple[Grid, ...]
    by_grid: Mapping[str, tuple[tuple[GridRun, str | None], ...]]
    """Of each grid its runs in the order of its table, each with the fingerprint of the run that it is; none: it needs
    a store that is missing, or that lacks something."""
    runs: Mapping[str, PlannedRun]
    """By fingerprint, each once, in the order in which they are done."""
    missing: Mapping[str, str]
    """Stores that are missing, by name, and the command that makes each."""
    misfits: Mapping[str, StoreMismatch]
    """Runs that the store they learn from does not fit, by name: it lacks a target, or views."""
    without_store: int
    """How many different runs, at most, need a store that is missing: with it, some may turn out to be one."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings for all runs, by dotted name."""

    def refuse_missing(self) -> None:
        """Refuse to begin what could not be finished.

        Raises:
            ConfigError: A store is missing; the message has the commands.
            StoreMismatch: A store lacks what a run wants of it.
        """
        if self.missing:
            names, commands = (
                ", ".join(self.missing),
                "; ".join(f"`{command}`" for command in dict.fromkeys(self.missing.values())),
            )
            lacking = "lacks" if self.study.path.is_dir() else "is not there yet, and lacks"
            raise ConfigError(f"{self.study.path} {lacking} the stores {names}. Make them: {commands}.")
        for problem in self.misfits.values():
            raise problem


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a run is."""

    steps: int
    """Of training that are done."""
    is_judged: bool
    """Whether every kind that is asked was answered."""
    total: int

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.steps >= self.total and self.is_judged


def make_plan(
    path: Path,
    grids: Sequence[Grid],
    *,
    images: Place | None = None,
    device: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan some grids on a study; nothing is written.

    Args:
        path: Folder of the study.
        grids: What is wanted.
        images: What the stores were extracted from; live teachers need them, and so do stores that keep no crops.
        device: Where runs will be trained: its precision is a part of what they are.
        overrides: Settings for all runs, by dotted name.

    Raises:
        Caev2Error: A grid, a store, or the two together make no run.
    """
    refuse_equal_names(grids)
    by_grid = {grid.name: expand(grid, overrides) for grid in grids}
    wanted = dict.fromkeys(run.store for runs in by_grid.values() for run in runs)
    study = open_study(path, wanted)
    makings = {name: making for grid in grids for name, making in grid.stores.items()}
    place = "IMAGES" if images is None else str(images)
    absent = [name for name in wanted if name not in study]
    sources = [name for name in with_sources(absent, makings) if not is_store(path / name)]
    missing = {name: command_for(path, name, makings, place) for name in dict.fromkeys([*sources, *absent])}
    gathered, known = _Gathered(study, images, device), {}
    for grid in grids:
        known[grid.name] = tuple((run, gathered.add(run, grid)) for run in by_grid[grid.name])
        _refuse_equal_runs(known[grid.name])
    return Plan(
        study=study,
        grids=tuple(grids),
        by_grid=known,
        runs=gathered.runs,
        missing=missing,
        misfits=gathered.misfits,
        without_store=len(gathered.without_store),
        overrides=dict(overrides or {}),
    )


def state_of(run: PlannedRun, out: Path, judging: Judging) -> State:
    """How far a run is, by what lies in its folder."""
    folder = out / RUNS / run.fingerprint
    steps = steps_trained(folder)
    judged = steps >= run.steps and find_result(folder, judging, run.kinds, run.steps) is not None
    return State(steps=min(steps, run.steps), is_judged=judged, total=run.steps)


def refuse_equal_names(grids: Iterable[Grid]) -> None:
    """Grids are folders, so each needs a name of its own.

    Raises:
        ConfigError: Two have the same.
    """
    seen: set[str] = set()
    for grid in grids:
        if grid.name in seen:
            raise ConfigError(f"Two grids are called {grid.name!r}, and each has a folder of that name. Rename a file.")
        seen.add(grid.name)


def _refuse_equal_runs(runs: Iterable[tuple[GridRun, str | None]]) -> None:
    """A difference between a run and itself would be told as a finding.

    Raises:
        ConfigError: Two variants of a grid are the same run.
    """
    seen: dict[str, GridRun] = {}
    for run, word in runs:
        if word is not None and (first := seen.setdefault(word, run)) is not run:
            raise ConfigError(
                f"{first.name} and {run.name} are the same run: what they set differently changes the speed alone, or "
                "says the same in other words. Leave one of them away."
            )


class _Gathered:
    """Runs by fingerprint, as grids ask for them one after another."""

    def __init__(self, study: Study, images: Place | None, device: str):
        self._study, self._images, self._device = study, images, device
        self.runs: dict[str, PlannedRun] = {}
        self.misfits: dict[str, StoreMismatch] = {}
        self.without_store: set[str] = set()
        self._known: dict[str, str] = {}

    def add(self, run: GridRun, grid: Grid) -> str | None:
        """The fingerprint of the run that a grid's run is; none: its store is missing, or does not fit."""
        asked = fingerprint([to_mapping(run.recipe), run.store, run.online])
        if run.store not in self._study:
            self.without_store.add(asked)
            return None
        if asked not in self._known:
            try:
                self._known[asked] = self._look(run)
            except StoreMismatch as problem:
                self.misfits[run.name] = problem
                return None
        there = self.runs[self._known[asked]]
        kinds = {*there.kinds, *grid.evaluations}
        self.runs[there.fingerprint] = dataclasses.replace(
            there,
            kinds=tuple(kind for kind in EVALUATIONS if kind in kinds),
            curves=there.curves or grid.curves,
            names=(*there.names, run.name),
        )
        return there.fingerprint

    def _look(self, run: GridRun) -> str:
        try:
            known = know_run(run.recipe, self._study[run.store], run.online, self._images, self._device)
        except Caev2Error as problem:
            raise type(problem)(f"{run.name}: {problem}") from None
        word = known.identity.fingerprint()
        self.runs.setdefault(
            word,
            PlannedRun(
                fingerprint=word,
                recipe=known.recipe,
                store=run.store,
                online=run.online,
                steps=known.steps,
                kinds=(),
                curves=False,
                names=(),
            ),
        )
        return word
