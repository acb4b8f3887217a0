"""Tidy tables of grids: one row for each run and metric, every setting a column; as CSV and as Parquet."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caev2.ablate.outcome import GridOutcome, RunOutcome, Setting
from caev2.store.disk import write_whole, writing

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Setting]

FIXED = {
    "grid": "string",
    "run": "string",
    "variant": "string",
    "seed": "int64",
    "fingerprint": "string",
    "store": "string",
    "metric": "string",
    "value": "double",
    "low": "double",
    "high": "double",
    "failure": "string",
}
"""The columns that every table has, and their Arrow types. The settings follow, with the types of their values."""


def rows_of(outcome: GridOutcome) -> list[Row]:
    """The rows of a grid, runs in the order of the grid; a failed run has its rows too, without values."""
    found = (metric for run in outcome.runs for metric in run.scores)
    metrics = tuple(dict.fromkeys((*outcome.metrics, *found)))
    return [_row(outcome.grid, run, metric) for run in outcome.runs for metric in metrics]


def _row(grid: str, run: RunOutcome, metric: str) -> Row:
    score = run.scores.get(metric) if run.failure is None else None
    return {
        "grid": grid,
        "run": run.name,
        "variant": run.variant,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
        "store": run.store,
        "metric": metric,
        "value": score and score.value,
        "low": score and score.low,
        "high": score and score.high,
        "failure": run.failure,
        **{f"axis.{name}": value for name, value in run.settings.items()},
        **flatten(run.recipe, "recipe."),
    }


def flatten(settings: Mapping[str, Any], prefix: str) -> Row:
    """A nested recipe as `recipe.loss.distance`; a list is one setting, spelled as JSON."""
    flat: Row = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column that a row has: the fixed ones, axes and then recipes, each in the order in which they appear."""
    found = dict.fromkeys(name for row in rows for name in row)
    axes = [name for name in found if name.startswith("axis.")]
    recipes = [name for name in found if name.startswith("recipe.")]
    return [*FIXED, *axes, *recipes]


def csv_of(rows: Sequence[Row]) -> bytes:
    """The rows as CSV: numbers to their last digit, `true` and `false`, nothing for none."""
    columns, text = columns_of(rows), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_spell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue().encode()


def _spell(value: Setting) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def arrow_of(rows: Sequence[Row]) -> "pa.Table":
    """The rows as an Arrow table; a setting that is none everywhere is a column of type null."""
    import pyarrow as pa

    arrays = {}
    for column in columns_of(rows):
        values = [row.get(column) for row in rows]
        kind = FIXED.get(column) or _kind_of(values)
        arrays[column] = pa.array([_fit(value, kind) for value in values], pa.type_for_alias(kind))
    return pa.table(arrays)


def _kind_of(values: Sequence[Setting]) -> str:
    """The Arrow type that holds all values; of unlike ones, text."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return "null"
    for kind, members in {"bool": {bool}, "int64": {int}, "double": {int, float}}.items():
        if kinds <= members and all(_is_exact(value, kind) for value in values):
            return kind
    return "string"


def _is_exact(value: Setting, kind: str) -> bool:
    """Whether a whole number survives: beyond 2^63, or as a double beyond 2^53, it would not."""
    return not isinstance(value, int) or abs(value) < 2 ** (63 if kind == "int64" else 53)


def _fit(value: Setting, kind: str) -> Setting:
    if value is None:
        return None
    if kind == "string":
        return _spell(value)
    return float(value) if kind == "double" else value


def parquet_of(rows: Sequence[Row]) -> bytes:
    """The rows as a Parquet file."""
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(arrow_of(rows), buffer, compression="zstd")
    return buffer.getvalue()


def write_rows(rows: Sequence[Row], folder: Path, name: str) -> list[Path]:
    """Write `name.csv` and `name.parquet`, each whole or not at all.

    Raises:
        OutputError: They cannot be written.
    """
    contents = {folder / f"{name}.csv": csv_of(rows), folder / f"{name}.parquet": parquet_of(rows)}
    for path, content in contents.items():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, content, scratch=folder)
    return list(contents)
