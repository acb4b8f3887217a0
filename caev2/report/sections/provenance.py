"""The chain from every number back to the teacher, each link compared with what lies at hand."""

from collections import Counter
from collections.abc import Mapping, Sequence

from caev2.ablate.outcome import RunOutcome
from caev2.report.drawing.markup import Child, Html, joined, prose, tag
from caev2.report.reading.chain import Check, Link, Mark, chain_of, result_links, worst
from caev2.report.reading.files import without_folders
from caev2.report.reading.grid_runs import check_outcome
from caev2.report.reading.runs import RunFolder, is_run, read_run
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.sections.section import Section, gaps_of, table, unfolding

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
        about="Result → checkpoint → run → store → teacher. Computed again for this page are the sha256 of checkpoints "
        "and the fingerprints of runs, fine-tunings and the store’s spec. Root digests and the sha256 of teachers are "
        "compared as two files record them.",
        body=tuple(body),
        gaps=gaps_of(runs, "run"),
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
    return tag("li", say_mark(check), " ", tag("span", prose(check.words)))


def say_mark(check: Check) -> Html:
    """The mark alone."""
    return _sign(check.mark)


def _sign(mark: Mark) -> Html:
    return tag("b", f"{_SIGNS[mark]} {_WORDS.get(mark, mark)}", class_=f"mark mark-{mark.replace(' ', '-')}")


def _grid(grid: Grid) -> Html:
    assert grid.outcome is not None, "whoever asks has looked"
    known = [(one, _read(grid, one)) for one in grid.outcome.runs]
    checks = [check_outcome(one, run, grid.outcome.val_images) for one, run in known]
    marks: Counter[Mark] = Counter(worst(of_one) for of_one in checks)
    about = tag("p", [joined([_sign(mark), f" {count}"], " ") for mark, count in marks.items()], class_="images")
    head = ("run", "fingerprint", "checkpoint", "root digest of the store", "compared")
    rows = [_row(one, run, of_one) for (one, run), of_one in zip(known, checks, strict=True)]
    return joined(
        [
            tag("h3", f"Runs of the grid {grid.called(grid.name)}"),
            about,
            unfolding(
                "Each run with its hashes",
                table(head, rows, about=f"Runs of the grid {grid.called(grid.name)}", words=len(head)),
                _sources([run for _, run in known if run is not None]),
            ),
        ]
    )


def _read(grid: Grid, one: RunOutcome) -> RunFolder | None:
    folder = grid.runs / one.fingerprint
    return read_run(folder, one.fingerprint) if is_run(folder) else None


def _row(one: RunOutcome, run: RunFolder | None, checks: tuple[Check, ...]) -> tuple[Child, ...]:
    alarm = worst(checks)
    told = [check for check in checks if check.mark == alarm]
    if alarm == "agrees":
        told = [Check(mark="agrees", words=f"in all {len(checks)} comparisons")]
    said = tag("ul", [show_check(check) for check in told], class_="checks")
    links = () if run is None else chain_of(run, StoreFolder(manifest=None))
    checkpoint = [[link.title, *(tag("code", value) for _, value in link.hashes)] for link in links[:1]]
    digest = "" if run is None or run.identity is None else run.identity.store_digest or "no store"
    return (
        without_folders(one.name),
        tag("code", one.fingerprint),
        joined(checkpoint[0], " ") if checkpoint else "–",
        tag("code", digest) if digest else "–",
        said,
    )


def _sources(runs: Sequence[RunFolder]) -> Html | None:
    """Stores and teachers of the runs, each once."""
    rows = {}
    for run in runs:
        if run.identity is not None:
            store, teacher = chain_of(run, StoreFolder(manifest=None))[2:]
            hashes = [dict(link.hashes) for link in (store, teacher)]
            row = (
                hashes[0].get("root digest", "no store"), hashes[0].get("fingerprint", "–"), teacher.title,
                ", ".join(teacher.about), hashes[1].get("sha256", "not recorded"),
            )  # fmt: skip
            rows[row] = tuple(tag("code", cell) if place in (0, 1, 4) else cell for place, cell in enumerate(row))
    head = ("root digest", "fingerprint of the store", "teacher", "tap", "sha256 of the teacher")
    return table(head, rows.values(), about="Stores and teachers of these runs", words=len(head)) if rows else None
