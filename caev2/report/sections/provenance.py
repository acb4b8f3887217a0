"""The chain from every number back to the teacher, each link compared with what lies at hand."""

from collections.abc import Mapping, Sequence

from caev2.report.drawing.markup import Html, joined, tag
from caev2.report.reading.checks import Check, Link, chain_of, compared, result_links, worst
from caev2.report.reading.files import Gap, without_folders
from caev2.report.reading.runs import RunFolder, is_run, read_run
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.sections.section import Section, table, unfolding

_SIGNS = {"agrees": "✓", "differs": "✗", "older": "↺", "not at hand": "–"}
_WORDS = {"older": "older checkpoint"}


def provenance_section(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder], grids: Sequence[Grid]) -> Section:
    """A chain for every run, and a line for every run of a grid.

    Args:
        runs: In the order of the page.
        stores: By the name of the run.
        grids: Of studies.
    """
    body: list[Html] = []
    for run in runs:
        body += [tag("h3", run.name)] if len(runs) > 1 else []
        body.append(_chain(result_links(run), chain_of(run, stores[run.name])))
    body += [_grid(grid) for grid in grids if grid.outcome is not None]
    return Section(
        id="provenance",
        title="Provenance",
        about="Result → checkpoint → run → store → teacher. Where a file lies at hand, its hash was computed again for "
        "this page.",
        body=tuple(body),
        gaps=tuple(
            Gap(what=gap.what, command=gap.command) for run in runs for gap in run.gaps if "run.json" in gap.what
        ),
    )


def _chain(results: Sequence[Link], links: Sequence[Link]) -> Html:
    above = tag("div", [_box(link) for link in results], class_="results") if results else None
    return joined([above, tag("ol", [tag("li", _box(link)) for link in links], class_="chain")])


def _box(link: Link) -> Html:
    hashes = [tag("div", tag("dt", name), tag("dd", tag("code", value))) for name, value in link.hashes]
    return tag(
        "div",
        tag("p", link.kind, class_="kind"),
        tag("p", tag("strong", link.title), class_="title"),
        [tag("p", line, class_="line") for line in link.about if line],
        tag("dl", hashes) if hashes else None,
        tag("ul", [show_check(check) for check in link.checks], class_="checks") if link.checks else None,
        class_=f"box box-{worst(link.checks).replace(' ', '-')}",
    )


def show_check(check: Check) -> Html:
    """A mark that can be told without its colour, and what was compared."""
    return tag("li", say_mark(check), " ", tag("span", check.words))


def say_mark(check: Check) -> Html:
    """The mark alone."""
    return tag(
        "b",
        f"{_SIGNS[check.mark]} {_WORDS.get(check.mark, check.mark)}",
        class_=f"mark mark-{check.mark.replace(' ', '-')}",
    )


def _grid(grid: Grid) -> Html:
    assert grid.outcome is not None, "whoever asks has looked"
    rows = []
    for one in grid.outcome.runs:
        checks = _check_run(grid, one.fingerprint)
        alarm = worst(checks)
        told = [check for check in checks if check.mark == alarm]
        if alarm == "agrees":
            told = [Check(mark="agrees", words=f"in all {len(checks)} comparisons")]
        said = [show_check(check) for check in told]
        rows.append((without_folders(one.name), tag("code", one.fingerprint), tag("ul", said, class_="checks")))
    content = table(("run", "fingerprint", "compared"), rows, about=f"Runs of the grid {grid.name}", words=3)
    return unfolding(f"Runs of the grid {grid.name}", content)


def _check_run(grid: Grid, fingerprint: str) -> tuple[Check, ...]:
    """What a run of a grid says of itself; all of it, or the worst."""
    folder = grid.runs / fingerprint
    if not is_run(folder):
        return (Check(mark="not at hand", words="its folder is not there"),)
    run = read_run(folder, fingerprint)
    own = compared("its run.json has this fingerprint", fingerprint, run.identity and run.identity.fingerprint())
    if run.identity is None:
        own = Check(mark="differs", words="its run.json does not hold its fingerprint")
    return (own, *(check for link in result_links(run) for check in link.checks))
