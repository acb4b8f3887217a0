"""What people see of a command: progress bars, tables, sizes in words."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


class Bars:
    """Progress bars on standard error, with rate, time left and the latest figures.

    Args:
        quiet: Only warnings are shown.
    """

    def __init__(self, quiet: bool = False):
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._bars: Progress | None = None
        self._task: TaskID | None = None

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Show a new bar."""
        if self._quiet:
            return
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            refresh_per_second=2,
        )
        self._bars.start()
        self._task = self._bars.add_task(what, total=total, completed=done, rate="", figures="")

    def advance(self, items: int, **figures: float | int) -> None:
        """Move the bar; show the figures until newer ones come."""
        if self._bars is None or self._task is None:
            return
        fields: dict[str, str] = {}
        if figures:
            fields["figures"] = "  ".join(f"{_short(name)} {_number(value)}" for name, value in figures.items())
        task = self._bars.tasks[0]
        if task.speed:
            fields["rate"] = f"{task.speed:,.1f}/s"
        self._bars.update(self._task, advance=items, **fields)

    def finish(self) -> None:
        """Leave the bar as it stands."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._task = None, None

    def warn(self, message: str) -> None:
        """Print a warning above the bar, the same one only once."""
        if message not in self._warned:
            self._warned.add(message)
            self._console.print(f"[yellow]warning:[/] {message}")

    _warned: set[str] = set()  # noqa: RUF012 - one process, one terminal


def _short(name: str) -> str:
    return {
        "cosine_class": "class",
        "cosine_visible": "visible",
        "cosine_masked": "masked",
        "images_per_s": "img/s",
    }.get(name, name)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def print_json(result: Any) -> None:
    """One machine-readable result on standard output."""
    print(json.dumps(result, default=str, ensure_ascii=False))


def print_facts(title: str, facts: dict[str, Any]) -> None:
    """A titled list of names and values on standard output."""
    print(title)
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"  {name:<{width}}  {value}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the first column is text, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout).print(table)


def say_bytes(count: int) -> str:
    """A size in words, in powers of ten."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
