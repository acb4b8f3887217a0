"""Grids: what was claimed, by whom, and what paired runs say of it."""

from collections.abc import Sequence
from pathlib import Path

from caev2.ablate.differences import Finding, find_differences
from caev2.ablate.outcome import GridOutcome
from caev2.ablate.sentences import say_findings
from caev2.ablate.wording import (
    is_accuracy,
    label_of,
    say_difference,
    say_settings,
    say_value,
    say_verdict,
    scale_of,
    title_of,
)
from caev2.report.drawing.bars import Bar, bar_chart
from caev2.report.drawing.frame import figure
from caev2.report.drawing.markup import Child, Html, joined, prose, tag
from caev2.report.reading.files import Gap, without_folders
from caev2.report.reading.studies import ABLATE, Grid
from caev2.report.sections.pictures import ALL_BYTES, Room, gallery
from caev2.report.sections.section import Section, charts, table, unfolding

_SHOWN_BARS = 2  # metrics drawn; the table has all


def ablations_section(grids: Sequence[Grid], *, alone: bool = False) -> Section:
    """Every grid: what was found, its claim, table and bars, and what was drawn of it.

    Args:
        grids: In the order of the page.
        alone: Whether the page has no runs, whose pictures need room as well.
    """
    body = []
    wanted = [[] if grid.outcome is None else _pictures(grid, grid.outcome) for grid in grids]
    room = Room(sum(map(len, wanted)), ALL_BYTES if alone else ALL_BYTES // 2)
    gaps = [gap for grid in grids for gap in grid.gaps]
    for grid, pictures in zip(grids, wanted, strict=True):
        if grid.outcome is not None:
            shown, missing = gallery(pictures, room, len(pictures), f"of the grid {grid.called(grid.name)}")
            body.append(_show(grid, grid.outcome, shown))
            gaps += [Gap(what=gap.what) for gap in missing]
    if not grids:
        gaps.append(Gap(what="No folder of a grid was given.", command=ABLATE))
    return Section(
        id="ablations",
        title="Ablations",
        about="Runs that differ in one thing, in pairs of equal seeds. A direction is claimed only where the mean "
        "difference exceeds twice its standard error; anywhere else it is not resolved. Drawn are means with one "
        "standard deviation of the seeds, which are the dots; the dashed line is the baseline.",
        body=tuple(body),
        gaps=tuple(gaps),
    )


def _pictures(grid: Grid, outcome: GridOutcome) -> list[tuple[Path, str]]:
    """Files and captions of what the page does not draw itself."""
    drawn = {f"bars-{metric.replace(' ', '-')}" for metric in outcome.metrics[:_SHOWN_BARS]}
    return [(path, _caption(path, outcome)) for path in grid.pictures if path.stem not in drawn]


def _caption(path: Path, outcome: GridOutcome) -> str:
    """What a picture of `caev2 ablate` shows, by its name."""
    kind, _, word = path.stem.partition("-")
    metric = next((title_of(one) for one in outcome.metrics if one.replace(" ", "-") == word), "")
    what = {"bars": "bars and differences", "line": "as a line", "heat": "as a heat map"}.get(kind)
    if path.stem == "curves":
        return f"{outcome.title}: curves over epochs"
    return f"{outcome.title}: {metric}, {what}" if metric and what else f"{outcome.title}: {path.stem}"


def _show(grid: Grid, outcome: GridOutcome, pictures: Html | None) -> Html:
    findings = find_differences(outcome)
    drawn = [_bars(outcome, findings, metric) for metric in outcome.metrics[:_SHOWN_BARS]]
    return tag(
        "article",
        tag("h3", without_folders(grid.called(outcome.title))),
        _sentences(outcome),
        tag("p", tag("b", "Claim tested: "), prose(without_folders(outcome.claim)), class_="claim")
        if outcome.claim
        else None,
        tag(
            "p",
            tag("cite", prose(without_folders(outcome.source))) if outcome.source else None,
            " · " if outcome.source else None,
            _say_size(outcome),
            class_="images",
        ),
        charts(one for one in drawn if one is not None),
        _table(outcome, findings),
        _failures(outcome),
        pictures,
    )


def _say_size(outcome: GridOutcome) -> str:
    judged = "" if outcome.val_images is None else f", judged on {outcome.val_images:,} images"
    guessing = f" of {outcome.classes:,} classes (one guess in {outcome.classes:,} is right)" if outcome.classes else ""
    recipe = f" Recipe {without_folders(outcome.recipe)}." if outcome.recipe else ""
    changed = f" Set for all runs: {without_folders(say_settings(outcome.overrides))}." if outcome.overrides else ""
    quick = " The quick form: its numbers say little of the full one." if outcome.quick else ""
    seeds = f"{len(outcome.seeds)} seed{'s' if len(outcome.seeds) != 1 else ''}"
    return f"{len(outcome.runs)} runs, {seeds}{judged}{guessing}.{recipe}{changed}{quick}"


def _sentences(outcome: GridOutcome) -> Html | None:
    """What is and what is not resolved, by every accuracy."""
    said = [one for metric in outcome.metrics if is_accuracy(metric) for one in say_findings(outcome, metric)]
    return tag("ul", [tag("li", without_folders(one)) for one in said], class_="sentences") if said else None


def named(metric: str) -> str:
    """A metric with its unit."""
    return f"{title_of(metric)}, %" if is_accuracy(metric) else title_of(metric)


def _table(outcome: GridOutcome, findings: Sequence[Finding]) -> Html:
    """A line a variant; of each metric its mean, and below it the difference to the baseline and the verdict."""
    head = ("variant", *(named(metric) for metric in outcome.metrics))
    by_place = {(one.variant, one.metric): one for one in findings}
    rows = [
        (_name(outcome, variant), *(_cell(by_place[variant, metric]) for metric in outcome.metrics))
        for variant in outcome.variants
    ]
    return table(head, rows, about=f"Grid {outcome.grid}")


def _name(outcome: GridOutcome, variant: str) -> Html:
    baseline = tag("small", "baseline") if variant == outcome.baseline else None
    return joined([without_folders(label_of(outcome, variant)), baseline], " ")


def _cell(finding: Finding) -> Child:
    if finding.difference is None:
        return say_value(finding)
    difference = finding.difference
    verdict = say_verdict(difference.verdict, finding.metric)
    return [
        say_value(finding),
        tag("small", without_folders(say_difference(difference, finding.metric))),
        tag("small", verdict, class_=f"verdict {difference.verdict.replace(' ', '-')}"),
    ]


def _bars(outcome: GridOutcome, findings: Sequence[Finding], metric: str) -> Html | None:
    shown = [one for one in findings if one.metric == metric]
    if all(one.mean is None for one in shown):
        return None
    factor = scale_of(metric)
    bars = [_bar(outcome, one, factor) for one in shown]
    baseline = next((one.mean for one in shown if one.difference is None), None)
    title = named(metric)
    chart = bar_chart(
        bars, title=f"{outcome.title}: {title}", unit="", baseline=None if baseline is None else baseline * factor
    )
    return figure(chart, title)


def _bar(outcome: GridOutcome, finding: Finding, factor: float) -> Bar:
    name, mean, reach = without_folders(label_of(outcome, finding.variant)), finding.mean, finding.deviation
    if mean is None:
        return Bar(name=name, value=None, words="failed")
    claimed = finding.difference is not None and finding.difference.is_claimed
    colour = "grey" if finding.variant == outcome.baseline else "blue" if claimed else "sky"
    return Bar(
        name=name,
        value=mean * factor,
        low=None if reach is None else (mean - reach) * factor,
        high=None if reach is None else (mean + reach) * factor,
        dots=tuple(value * factor for value in finding.by_seed.values()),
        colour=colour,
        words=f"{mean * factor:.{1 if is_accuracy(finding.metric) else 3}f}",
    )


def _failures(outcome: GridOutcome) -> Html | None:
    failed = [run for run in outcome.runs if run.failure]
    if not failed:
        return None
    items = [tag("li", tag("b", without_folders(run.name)), ": ", without_folders(run.failure or "")) for run in failed]
    return unfolding(f"{len(failed)} of {len(outcome.runs)} runs failed", tag("ul", items))
