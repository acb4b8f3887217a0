"""What people see of a command: progress lines, tables, sizes in words."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress, Task
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 30.0
"""Between two lines about slow work, where there is no terminal to draw on; each tenth of the work is told as well."""
_PLAIN_LEAST_SECONDS = 1.0  # work of a moment writes one line, not ten
_ANCHOR_SECONDS = 30.0  # rate and time left are those since the last moment but one of so many seconds
_BAR_WIDTHS = (8, 24)  # columns: a narrower bar says nothing, a wider one nothing more


class Bars:
    """Progress on standard error: what, how much of it, rate, time left and the latest figures.

    On a terminal that is one line, redrawn, and never wider than the terminal. Elsewhere, as in the log of a batch
    job, it is a plain line now and then.

    Args:
        quiet: Only warnings are shown.
        console: Where to; none: standard error.
        clock: Seconds since any moment.
    """

    def __init__(
        self, quiet: bool = False, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self._console = console or Console(stderr=True)
        self._quiet, self._clock = quiet, clock
        self._line: _Line | None = None
        self._told_tenth, self._told_at = 0, 0.0  # of the last plain line
        self._told_completed: float | None = None
        self._warned: set[str] = set()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begin a new line; one that was left open ends as it stands."""
        self.finish()
        if self._quiet:
            return
        self._line = _Line(
            console=self._console,
            refresh_per_second=2,
            get_time=self._clock,
            disable=not self._console.is_terminal,
        )
        self._line.start()
        self._line.begin(what, total, done)
        self._told_tenth, self._told_at = 10 * done // max(total, 1), self._clock()
        self._told_completed = None

    def advance(self, items: int, **figures: float | int) -> None:
        """Count items; show the figures until newer ones come."""
        if self._line is None:
            return
        self._line.move(items, figures)
        if self._line.disable:
            self._tell_now_and_then(self._line.tasks[0])

    def _tell_now_and_then(self, task: Task) -> None:
        waited, tenth = self._clock() - self._told_at, int(10 * task.completed // max(task.total or 0, 1))
        if waited >= PLAIN_SECONDS or (tenth > self._told_tenth and waited >= _PLAIN_LEAST_SECONDS):
            self._tell(task)
            self._told_tenth, self._told_at = tenth, self._clock()

    def _tell(self, task: Task) -> None:
        self._told_completed = task.completed
        self._console.print(Text(": ".join((task.description, ", ".join(_parts(task))))), soft_wrap=True)

    def finish(self) -> None:
        """Leave the line as it stands."""
        if self._line is None:
            return
        self._line.stop()
        if self._line.disable and self._told_completed != self._line.tasks[0].completed:
            self._tell(self._line.tasks[0])
        self._line = None

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._console.print(Text(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a warning above the line, the same one only once."""
        if message not in self._warned:
            self._warned.add(message)
            self._console.print(Text.assemble(("warning:", "yellow"), " ", message), soft_wrap=True)


class _Line(Progress):
    """One task in one line, composed by hand: a table of columns squeezes all of them where space is short."""

    def begin(self, what: str, total: int, done: int) -> None:
        """Begin the task; what an earlier run has done is no part of its rate."""
        self.add_task(
            what, total=total, completed=done, figures={}, anchors=((now := self.get_time(), done),), moved=now
        )

    def move(self, items: int, figures: Mapping[str, float | int]) -> None:
        """Count items and take newer figures."""
        task, now = self.tasks[0], self.get_time()
        fields: dict[str, Any] = {"moved": now, **({"figures": figures} if figures else {})}
        if now - task.fields["anchors"][-1][0] > _ANCHOR_SECONDS:
            fields["anchors"] = (task.fields["anchors"][-1], (now, task.completed + items))
        self.update(task.id, advance=items, **fields)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The line, as wide as the terminal allows."""
        for task in self.tasks:
            yield Text(compose_line(task.description, _parts(task), _share(task), self.console.width), no_wrap=True)


def _items_per_s(task: Task) -> float:
    """Of the last minute or so; 0 where that is not known yet."""
    begin, before = task.fields["anchors"][0]
    seconds = task.fields["moved"] - begin
    return (task.completed - before) / seconds if seconds > 0 else 0.0


def _share(task: Task) -> float | int:
    return min(1.0, task.completed / task.total) if task.total else 1.0


def _parts(task: Task) -> list[str]:
    """What there is to say of a task, the most telling first."""
    total = f"{int(task.total or 0):,}"
    figures, rate = task.fields["figures"], _items_per_s(task)
    if task.finished:
        clock = f"took {_duration(task.finished_time or 0)}"
    else:
        clock = f"eta {_duration(((task.total or 0) - task.completed) / rate) if rate else '-:--:--'}"
    return [
        f"{f'{int(task.completed):,}':>{len(total)}}/{total}",
        _percent(task),
        # steps a second say less than images a second, and there is no room for both on most terminals
        *([_rate(rate)] if rate and "images_per_s" not in figures else []),
        clock,
        *(_figure(name, figures[name]) for name in sorted(figures, key=_rank)),
    ]


def compose_line(what: str, parts: Sequence[str], share: float | int, width: int) -> str:
    """The name of some work, a bar, and as many of the parts, in their order, as fit.

    Args:
        what: Name of the work.
        parts: What there is to say, the most telling first.
        share: How much of the work is done, 0 to 1.
        width: Columns of the terminal.
    """
    space, least = width - 1, _BAR_WIDTHS[0] + 1  # the last column stays free: some terminals wrap after it
    shown = [what]
    for part in parts:
        if len("  ".join([*shown, part])) > space:
            break
        shown.append(part)
    left = space - len("  ".join(shown)) - 2
    if left < least:
        return "  ".join(shown)[:width]
    columns = min(left, _BAR_WIDTHS[1])
    full = round(share * columns)
    return "  ".join([what, "━" * full + "╌" * (columns - full), *shown[1:]])


_FIGURES = {
    "loss": "loss {:.3f}",
    "images_per_s": "{:,.0f} img/s",
    "epoch": "epoch {}",
    "cosine_masked": "cos masked {:.3f}",
    "cosine_visible": "cos visible {:.3f}",
    "cosine_class": "cos class {:.3f}",
    "data_wait_percent": "data wait {:.0f} %",
    "mfu_percent": "MFU {:.0f} %",
    "lr": "lr {:.1e}",
    "grad_norm": "grad norm {:.2f}",
}
"""Figures of training, the most telling first, and how they are written. Others follow as they come."""


def _rank(name: str) -> int:
    return list(_FIGURES).index(name) if name in _FIGURES else len(_FIGURES)


def _figure(name: str, value: float | int) -> str:
    return _FIGURES[name].format(value) if name in _FIGURES else f"{name} {_number(value)}"


def _number(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _percent(task: Task) -> str:
    """Rounded down: 100 % is the end; of long work with a decimal."""
    thousandths = int(1000 * _share(task))
    return f"{thousandths / 10:.1f} %" if (task.total or 0) >= 1000 else f"{thousandths // 10} %"


def _rate(items_per_s: float | int) -> str:
    if items_per_s < 1:
        return f"{1 / items_per_s:.1f} s each"
    return f"{items_per_s:,.1f}/s" if items_per_s < 100 else f"{items_per_s:,.0f}/s"


def _duration(seconds: float | int) -> str:
    """In hours, minutes and seconds; two days and more in days and hours."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours}:{rest // 60:02}:{rest % 60:02}"


def print_json(result: Any) -> None:
    """One machine-readable result on standard output."""
    print(json.dumps(result, default=str, ensure_ascii=False))


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """A titled list of names and values on standard output."""
    print(title)
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"  {name:<{width}}  {value}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the first column is text, the others numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout).print(table)
