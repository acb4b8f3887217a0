"""Writes what is made of outcomes: for each grid a table, rows and pictures; for all of them one page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from caev2.ablate.curves import plot_curves, read_curves
from caev2.ablate.markdown import ablations_page, table_page
from caev2.ablate.outcome import GridOutcome
from caev2.ablate.plots import numeric_axis, plot_bars, plot_heat, plot_line
from caev2.ablate.tables import rows_of, write_rows
from caev2.ablate.wording import is_accuracy, title_of
from caev2.errors import ConfigError
from caev2.eval.drawing import require_matplotlib
from caev2.store.disk import write_whole, writing

PAGE, TABLE = "ablations.md", "table.md"


def write_pages(outcomes: Sequence[GridOutcome], out: Path, warn: Callable[[str], None]) -> list[Path]:
    """Write the pages, rows and pictures of grids; the same outcomes and logs give the same bytes.

    Args:
        outcomes: The grids, in the order of the page.
        out: Folder of the study's results: `runs/<fingerprint>` in it holds the logs, `<grid>` what is written.
        warn: Told once of each log that is damaged, whose curves are left out.

    Returns:
        Every file that was written.

    Raises:
        OutputError: Something cannot be written.
    """
    notes = _why_no_pictures()
    written, pictures = [], {}
    warnings: dict[str, None] = {}
    for outcome in outcomes:
        folder = out / outcome.grid
        drawn = {} if notes else draw(outcome, folder, out / "runs", warnings.setdefault)
        written += [
            _write(
                folder / TABLE, table_page(outcome, {title: quote(path.name) for title, path in drawn.items()}, notes)
            )
        ]
        written += [*write_rows(rows_of(outcome), folder, "runs"), *drawn.values()]
        pictures[outcome.grid] = {title: quote(f"{outcome.grid}/{path.name}") for title, path in drawn.items()}
    for warning in warnings:
        warn(warning)
    written += write_rows([row for outcome in outcomes for row in rows_of(outcome)], out, "all-runs")
    return [*written, _write(out / PAGE, ablations_page(outcomes, pictures, notes))]


def _why_no_pictures() -> list[str]:
    try:
        require_matplotlib()
    except ConfigError as problem:
        return [f"There are no pictures here. {problem}"]
    return []


def _write(path: Path, text: str) -> Path:
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode(), scratch=path.parent)
    return path


def draw(outcome: GridOutcome, folder: Path, runs: Path, warn: Callable[[str], None]) -> dict[str, Path]:
    """Draw a grid, accuracies first; what no run has is not drawn.

    Args:
        outcome: The grid.
        folder: Where pictures go.
        runs: Folder of the run folders.
        warn: Told of logs that are damaged.

    Returns:
        The pictures, by what they show.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: A picture cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for metric in _drawn_metrics(outcome):
        name, word = title_of(metric), metric.replace(" ", "-")
        drawn[f"{name}: bars and differences"] = plot_bars(outcome, metric, folder / f"bars-{word}.png")
        axis = numeric_axis(outcome)
        if axis is not None:
            drawn[f"{name} over {axis.name}"] = plot_line(outcome, axis, metric, folder / f"line-{word}.png")
        if len(outcome.axes) == 2:
            drawn[f"{name}: heat map"] = plot_heat(outcome, metric, folder / f"heat-{word}.png")
    curves = read_curves(outcome, runs, warn)
    if curves:
        drawn["curves over epochs"] = plot_curves(outcome, curves, folder / "curves.png")
    return drawn


def _drawn_metrics(outcome: GridOutcome) -> list[str]:
    """Accuracies that some run has, else the most telling metric: cosines and losses are seen in the curves."""
    there = [metric for metric in outcome.metrics if any(metric in run.scores for run in outcome.runs)]
    return [metric for metric in there if is_accuracy(metric)] or there[:1]
