"""What an earlier command found, where this one would write its own in that place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from caev2.ablate.grids import Grid
from caev2.ablate.outcome import GridOutcome, read_outcome
from caev2.ablate.stored import StoredTarget
from caev2.ablate.wording import say_settings
from caev2.errors import ConfigError


def refuse_other_forms(grids: Iterable[Grid], out: Path) -> None:
    """A built-in grid has one folder in `out`, where its quick form would write over its full one, or the other way.

    Raises:
        ConfigError: The other form lies there.
    """
    for grid in grids:
        found = _found(grid, out)
        if found is not None and found.quick != grid.quick:
            form, other = ("quick" if quick else "full" for quick in (found.quick, grid.quick))
            raise ConfigError(
                f"{out / grid.name} has what the {form} form of this grid found, which its {other} form would write "
                "over. Give another folder, or remove that one; what lies in `runs` can stay."
            )


def warn_of_other_numbers(
    grid: Grid,
    out: Path,
    overrides: Mapping[str, Any],
    targets: Sequence[StoredTarget],
    warn: Callable[[str], None],
) -> None:
    """Tell where a table is about to be replaced by one of other runs: of other settings, or of another study.

    Args:
        grid: What is wanted.
        out: Where the table lies.
        overrides: Settings for all runs.
        targets: What its runs learn from.
        warn: Who is told.
    """
    found = _found(grid, out)
    if found is None:
        return
    changes = []
    if dict(found.overrides) != dict(overrides):
        before, after = (say_settings(settings) or "nothing" for settings in (found.overrides, overrides))
        changes.append(f"with {before} set for all runs, and not {after}")
    if found.targets and {one.digest for one in found.targets} != {one.digest for one in targets}:
        changes.append("on other stores")
    if changes:
        warn(
            f"{out / grid.name} has the table of earlier runs, {' and '.join(changes)}; this command writes over it. "
            "The runs are kept: the earlier command brings its table back, here or in another folder."
        )


def _found(grid: Grid, out: Path) -> GridOutcome | None:
    try:
        return read_outcome(out / grid.name)
    except ConfigError:  # none, or damaged: nothing to lose
        return None
