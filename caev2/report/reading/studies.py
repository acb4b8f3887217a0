"""The folder that `caev2 ablate` leaves: grids, and the runs that they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.outcome import FILE_NAME, GridOutcome, read_outcome
from caev2.errors import ConfigError
from caev2.report.reading.files import Gap, children, name_of_folder

ABLATE = "caev2 ablate STUDY GRID OUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One grid of a study, and what lies beside its outcome."""

    name: str
    folder: Path
    outcome: GridOutcome | None
    """None: it is damaged, and a gap says so."""
    pictures: tuple[Path, ...]
    runs: Path
    """The folder of the runs, by fingerprint."""
    gaps: tuple[Gap, ...]
    apart: str = ""
    """What tells it from another grid of the same name on the page; nothing: there is none."""

    def called(self, title: str) -> str:
        """A heading that only this grid of the page has."""
        return f"{title} ({self.apart})" if self.apart else title


def find_grids(folder: Path) -> list[Path]:
    """The grids below a folder, or the folder itself if it is one."""
    if (folder / FILE_NAME).exists():
        return [folder]
    return [place for place in children(folder) if (place / FILE_NAME).exists()]


def in_order(folders: Sequence[Path]) -> list[Path]:
    """Built-in grids as `caev2 ablate --list` has them, then all others by name."""
    by_name = {folder.name: folder for folder in folders}
    known = [name for name in built_in_grids(quick=False) if name in by_name]
    return [by_name[name] for name in dict.fromkeys([*known, *sorted(by_name)])]


def told_apart(grids: Sequence[Grid]) -> list[Grid]:
    """Grids of one name by their form, quick or full, or else by the folder that they lie in, or else by number."""
    found = []
    for place, grid in enumerate(grids):
        alike = [number for number, one in enumerate(grids) if one.name == grid.name]
        names = next(names for names in _names([grids[number] for number in alike]) if len(set(names)) == len(alike))
        found.append(replace(grid, apart=names[alike.index(place)] if len(alike) > 1 else ""))
    return found


def _names(grids: Sequence[Grid]) -> Iterable[list[str]]:
    """Ways to tell some grids apart; the last one always does."""
    yield [_form(grid) for grid in grids]
    yield [name_of_folder(grid.folder.parent) for grid in grids]
    yield [str(number) for number in range(1, len(grids) + 1)]


def _form(grid: Grid) -> str:
    return "damaged" if grid.outcome is None else "quick form" if grid.outcome.quick else "full form"


def read_grid(folder: Path) -> Grid:
    """Read what a grid came to; a damaged one is a gap."""
    gaps: tuple[Gap, ...] = ()
    try:
        outcome = read_outcome(folder)
        if not outcome.runs or outcome.baseline not in outcome.variants:
            raise ConfigError("no runs")
    except ConfigError:  # its message names folders
        outcome = None
        again = "It is not what caev2 ablate writes. Run the grid again: what it computed is kept."
        gaps = (Gap(what=f"{folder.name}/{FILE_NAME} is damaged. {again}", command=ABLATE),)
    return Grid(
        name=folder.name,
        folder=folder,
        outcome=outcome,
        pictures=tuple(path for path in children(folder) if path.suffix.lower() == ".png"),
        runs=folder.parent / "runs",
        gaps=gaps,
    )
