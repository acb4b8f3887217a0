"""What a section is, and the pieces that several of them are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from caev2.report.drawing.markup import Child, Html, prose, tag
from caev2.report.reading.files import Gap
from caev2.report.reading.runs import RunFolder

NO_RUN = Gap(
    what="No run was named by itself, so curves, probes and pictures of students are left out; the runs of a grid lie "
    "beside it.",
    command="caev2 report OUT/runs/FINGERPRINT report.html",
)
"""Why a page of grids alone has no section about runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page."""

    id: str
    """Where the navigation leads."""
    title: str
    about: str
    """A sentence below the title."""
    body: tuple[Html, ...]
    """Empty: there is nothing to show, and the gaps say why."""
    gaps: tuple[Gap, ...] = ()

    @property
    def is_filled(self) -> bool:
        """Whether it shows anything."""
        return bool(self.body)

    def markup(self) -> Html:
        """The element."""
        head = tag("header", tag("h2", self.title), tag("p", self.about, class_="about"))
        body = self.body or (tag("p", "Nothing to show yet.", class_="none"),)
        return tag("section", head, body, list_gaps(self.gaps), id=self.id)


def gaps_of(runs: Sequence[RunFolder], section: str) -> tuple[Gap, ...]:
    """What a section lacks of some runs; of several, each says of which."""
    found = [(run.name, gap) for run in runs for gap in run.gaps_of(section)]
    return tuple(gap if len(runs) == 1 else replace(gap, what=f"{name}: {gap.what}") for name, gap in found)


def list_gaps(gaps: Iterable[Gap]) -> Html | None:
    """What is missing, with the commands that make it; each once."""
    items = [
        tag("li", prose(gap.what), None if gap.command is None else [" Run ", tag("code", gap.command), "."])
        for gap in dict.fromkeys(gaps)
    ]
    return tag("aside", tag("h3", "Missing"), tag("ul", items), class_="gaps") if items else None


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], *, about: str, words: int = 1) -> Html:
    """A table that scrolls in a box of its own.

    Args:
        head: Names of the columns.
        rows: Cells.
        about: What it is, for those who do not see it.
        words: How many columns at the beginning are words; the others are numbers.
    """
    kinds = ["words" if place < words else "number" for place in range(len(head))]
    top = tag("tr", [tag("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)])
    lines = [
        tag("tr", [_cell(cell, kind, place) for place, (cell, kind) in enumerate(zip(row, kinds, strict=True))])
        for row in rows
    ]
    content = tag("table", tag("thead", top), tag("tbody", lines))
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=about)


def _cell(cell: Child, kind: str, place: int) -> Html:
    return tag("th", cell, scope="row", class_=kind) if place == 0 else tag("td", cell, class_=kind)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs], class_="facts")


def charts(drawings: Iterable[Html]) -> Html:
    """Drawings beside each other, as many as there is room for."""
    return tag("div", list(drawings), class_="charts")


def unfolding(title: str, *content: Child) -> Html:
    """What opens when asked; in print it is open."""
    return tag("details", tag("summary", title), *content)
