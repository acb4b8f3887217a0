"""The commands that make a grid's numbers again: all at once, and run by run. Pure."""

import shlex
from collections.abc import Mapping

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.making import with_sources
from caev2.ablate.outcome import GridOutcome, RunOutcome
from caev2.report.reading.results import KNN, Result
from caev2.report.reproducing.commands import Command, say_digest, sets
from caev2.report.reproducing.recipes import spell
from caev2.report.reproducing.training import Places

_STUDY, _BUILT_IN_STUDY = "STUDY", "FOLDER/study"


def grid_command(outcome: GridOutcome) -> Command:
    """All runs of a grid and its table."""
    grid, notes = outcome.grid, []
    if not is_built_in(outcome):
        grid = f"{grid}.toml"
        notes.append(f"{grid} is the grid’s own file.")
    quick = ["--quick"] if outcome.quick else []
    judging = ["--probe-images", judging_images(outcome)] if outcome.judged_apart else []
    settings = sets(f"{name}={spell(value)}" for name, value in outcome.overrides.items())
    seeds = ",".join(map(str, outcome.seeds))
    if outcome.val_images is not None:
        notes.append(f"{judging_images(outcome)} has {outcome.val_images:,} val images; digests stand below, by run.")
    words = ("ablate", _STUDY, grid, "OUT", *quick, "--images", "IMAGES", *judging, "--seeds", seeds, *settings)
    return Command(makes=f"every number of the grid {outcome.grid}", words=words, notes=tuple(notes))


def is_built_in(outcome: GridOutcome) -> bool:
    """Whether its name is enough; of older outcomes, which do not say so, the name itself tells."""
    if outcome.built_in is None:
        return outcome.grid in built_in_grids(quick=outcome.quick)
    return outcome.built_in


def judging_images(outcome: GridOutcome) -> str:
    """What the images that judge are called in its commands."""
    return "PROBE_IMAGES" if outcome.judged_apart else "IMAGES"


def places_of(outcome: GridOutcome, run: RunOutcome) -> Places:
    """Where a run of a grid lies, and the store that it learned from."""
    return Places(
        store=f"{_STUDY}/{run.store}", run=f"OUT/runs/{run.fingerprint}", judging=judging_images(outcome)
    )  # fmt: skip


def is_of_grid(result: Result, run: RunOutcome) -> bool:
    """Whether a result of a run has a number of the grid's table, to the last bit."""
    found = [
        (name, share.accuracy.value)
        for one in result.entries
        if one.role == "student"
        for name, share in one.shares.items()
    ]
    return any((KNN if name == "knn" else name, score.value) in found for name, score in run.scores.items())


def store_commands(outcome: GridOutcome, digests: Mapping[str, str]) -> list[Command]:
    """What makes each store of a grid.

    Args:
        outcome: Of the grid.
        digests: By name of a store, the root digest that its runs record.
    """
    names = list(dict.fromkeys(run.store for run in outcome.runs if run.store is not None))
    if not is_built_in(outcome):
        words = ("ablate", _STUDY, f"{outcome.grid}.toml", "OUT", "--images", "IMAGES", "--dry-run")
        return [Command(makes="the list of stores that are missing, each with its command", words=words)]
    grid = built_in_grids(quick=outcome.quick)[outcome.grid]
    makings = with_sources(names or [grid.store], grid.stores)
    by_line: dict[str, list[str]] = {}
    for name, making in makings.items():
        line = making.command(_BUILT_IN_STUDY if making.built_in else _STUDY, name, "IMAGES")
        by_line.setdefault(line, []).append(name)
    return [_store_command(line, made, digests, makings[made[0]].built_in) for line, made in by_line.items()]


def _store_command(line: str, names: list[str], digests: Mapping[str, str], built_in: bool) -> Command:
    notes = [f"STUDY is then {_BUILT_IN_STUDY}, and IMAGES FOLDER/scenes."] if built_in else []
    sealed = [f"{name} {say_digest(digests[name])}" for name in names if digests.get(name)]
    notes += [f"Sealed under the digests {', '.join(sealed)}"] if sealed else []
    makes = f"the store{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return Command(makes=makes, words=tuple(shlex.split(line)[1:]), notes=tuple(notes))
