"""Run folders, demos and studies → one HTML file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from caev2.errors import Caev2Error, ConfigError
from caev2.report.page import page_of
from caev2.report.reading.environment import describe_machine
from caev2.report.reading.files import Gap, name_of_folder, without_folders
from caev2.report.reading.runs import RunFolder, is_run, read_run
from caev2.report.reading.shapes import WRONG
from caev2.report.reading.stores import read_store
from caev2.report.reading.studies import Grid, find_grids, in_order, read_grid, told_apart
from caev2.report.sections.ablations import ablations_section
from caev2.report.sections.curves import curves_section
from caev2.report.sections.environment import environment_section
from caev2.report.sections.pictures import pictures_section
from caev2.report.sections.probes import probes_section
from caev2.report.sections.provenance import provenance_section
from caev2.report.sections.reproduce import reproduce_section
from caev2.report.sections.section import Section
from caev2.report.sections.stores import stores_section
from caev2.report.sections.summary import summary_section
from caev2.store.disk import write_whole, writing

_OF_RUNS = ("Curves", "Probes", "Pictures")
"""Sections that a page of grids alone does without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """What was written."""

    path: str
    bytes: int
    sections: dict[str, bool]
    """By id: whether it shows anything."""
    missing: tuple[str, ...]
    """What sections lack, in words."""


def report(places: Sequence[Path], out: Path, *, store: Path | None = None) -> ReportResult:
    """Write the page of some runs and studies.

    Args:
        places: Folders of runs, of demos, of `caev2 ablate`, or of one grid.
        out: The file.
        store: The store of the runs; none: looked for beside each.

    Raises:
        ConfigError: One of the places is none of these.
        OutputError: The file cannot be written.
    """
    runs, grids = find(places, store)
    sections = sections_of(runs, grids)
    page = page_of(*_titles(runs, grids), sections)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder. Give the name of a file, such as {out / 'report.html'}.")
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page, scratch=out.parent)
    return ReportResult(
        path=str(out),
        bytes=len(page),
        sections={one.id: one.is_filled for one in sections},
        missing=tuple(dict.fromkeys(gap.what for one in sections for gap in one.gaps)),
    )


def find(places: Sequence[Path], store: Path | None = None) -> tuple[list[RunFolder], list[Grid]]:
    """Runs and grids at some places.

    Raises:
        ConfigError: There is none at one of them.
    """
    folders: list[tuple[str, Path]] = []
    grids: list[Grid] = []
    for place in places:
        found = in_order(find_grids(place))
        if is_run(place):
            folders.append((_name_of(place), place))
        elif is_run(place / "run"):
            folders.append((name_of_folder(place), place / "run"))
        elif found:
            grids += [read_grid(folder) for folder in found]
        else:
            raise ConfigError(
                f"There is no run at {place}: no run.json, no run/run.json as of a demo, and no outcome.json of a grid "
                "below it. Make one with `caev2 pretrain`, `caev2 demo` or `caev2 ablate`."
            )
    return [read_run(path, name, store=store) for name, path in _told_apart(folders)], told_apart(grids)


def _name_of(run: Path) -> str:
    """A run's own name; of one that is called `run`, its parent's says more."""
    whole = run.resolve()
    return name_of_folder(whole.parent if whole.name == "run" and whole.parent.name else whole)


def _told_apart(folders: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """The same folders, each with a name of its own."""
    names: dict[str, int] = {}
    told = []
    for name, path in folders:
        names[name] = names.get(name, 0) + 1
        told.append((name if names[name] == 1 else f"{name} ({names[name]})", path))
    return told


def sections_of(runs: Sequence[RunFolder], grids: Sequence[Grid]) -> list[Section]:
    """Everything there is to show, in the order of the page; of grids alone, what is about them."""
    stores = {run.name: read_store(run.store, run.identity) for run in runs}
    made = {
        "Summary": partial(summary_section, runs, stores, grids),
        "Curves": partial(curves_section, runs),
        "Probes": partial(probes_section, runs),
        "Ablations": partial(ablations_section, grids, alone=not runs),
        "Pictures": partial(pictures_section, runs),
        "Store": partial(stores_section, runs, stores, grids),
        "Provenance": partial(provenance_section, runs, stores, grids),
        "Environment": lambda: environment_section(describe_machine()),
        "Reproduce": partial(reproduce_section, runs, stores, grids),
    }
    return [_guarded(title, make) for title, make in made.items() if runs or title not in _OF_RUNS]


def _guarded(title: str, make: Callable[[], Section]) -> Section:
    """A section, or why there is none: what is wrong with one file leaves the other sections as they are."""
    try:
        return make()
    except (Caev2Error, *WRONG) as problem:
        said = without_folders(f"{type(problem).__name__}: {problem}")
        what = f"This section could not be made ({said})."
        again = (
            "A file that it reads is not what caev2 writes: restore it from a copy, or make it again. If all are "
            "whole, this is a bug of caev2."
        )
        return Section(
            id=title.lower(), title=title, about="Nothing can be shown.", body=(), gaps=(Gap(what=f"{what} {again}"),)
        )


def _titles(runs: Sequence[RunFolder], grids: Sequence[Grid]) -> tuple[str, str]:
    names = [run.name for run in runs] or [grid.name for grid in grids]
    title = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    if len(grids) > 1 and not runs:
        title = "Ablations"
    counted = [
        f"{len(some)} {what}{'s' if len(some) != 1 else ''}" for some, what in ((runs, "run"), (grids, "grid")) if some
    ]
    return title, "CAE v2 pre-training on stored targets: " + " and ".join(counted)
