"""Who is worth what: pixels, random start, student and teacher side by side."""

from collections.abc import Sequence

from caev2.report.drawing.bars import Bar, bar_chart
from caev2.report.drawing.frame import figure
from caev2.report.drawing.markup import Html, joined, tag
from caev2.report.drawing.strip import heat_strip
from caev2.report.reading.files import Gap
from caev2.report.reading.results import Entry, Result
from caev2.report.reading.runs import RunFolder
from caev2.report.sections.section import NO_RUN, Section, charts, table, unfolding

_WANTED = (
    ("probe", "No probe", "caev2 probe RUN IMAGES"),
    ("segment", "No segmentation", "caev2 segment RUN IMAGES"),
    ("finetune", "No fine-tuning", "caev2 finetune RUN --train IMAGES --out RUN/finetuned/student"),
)
_MAIN = "linear"
"""The evaluation whose classes are always in sight."""
_COLOURS = {"pixels": "pale", "random start": "grey", "student": "blue", "model": "green", "teacher": "orange"}


def probes_section(runs: Sequence[RunFolder]) -> Section:
    """Every result of every run; of several fine-tunings one table."""
    body: list[Html] = []
    for run in runs:
        found = [_show(group) for group in grouped(run.results)]
        if found:
            body += [tag("h3", run.name)] if len(runs) > 1 else []
            body += found
    return Section(
        id="probes",
        title="Probes",
        about="What frozen features, and fine-tuned encoders, are worth on images that nothing was trained on. "
        "Whiskers: 95 % intervals; of few-shot probes one standard deviation of the draws, which are the dots.",
        body=tuple(body),
        gaps=tuple(
            gap for run in runs for gap in run.gaps if ".json" in gap.what and not gap.what.startswith("run.json")
        )
        + missing_results(runs),
    )


def missing_results(runs: Sequence[RunFolder]) -> tuple[Gap, ...]:
    """What runs have not been asked yet, with the commands."""
    gaps = [] if runs else [NO_RUN]
    for kind, words, command in _WANTED:
        lacking = [run.name for run in runs if not any(result.kind == kind for result in run.results)]
        if lacking:
            of = "" if len(runs) == 1 else f" of {', '.join(lacking)}"
            gaps.append(Gap(what=f"{words}{of} yet.", command=command))
    return tuple(gaps)


def grouped(results: Sequence[Result]) -> list[list[Result]]:
    """Results that belong in one table: fine-tunings on the same images, all others by themselves."""
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        about = result.content.get("train_digest"), result.content.get("val_digest")
        key = ("tuned", *about) if result.kind == "finetune" else (result.file,)
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def _show(group: Sequence[Result]) -> Html:
    first = group[0]
    entries = [entry for result in group for entry in result.entries]
    evaluations = list(dict.fromkeys(name for result in group for name in result.evaluations))
    numbers = table(
        ("", *evaluations),
        [(_say_name(entry), *(_say(entry, name) for name in evaluations)) for entry in entries],
        about=say_title(group),
    )
    drawn = [_bars(entries, name) for name in evaluations]
    shown = [charts(drawn), numbers] if drawn else [numbers]
    return tag(
        "article",
        tag("h4", say_title(group)),
        tag("p", _say_images(first), class_="images"),
        tag("div", shown, class_="pair") if len(drawn) == 1 else shown,
        _classes(entries, evaluations, first.classes),
    )


def say_title(group: Sequence[Result]) -> str:
    """What a table is of."""
    words = {"probe": "Probes of frozen features", "segment": "Segmentation on frozen tokens", "finetune": "Fine-tuned"}
    earlier = " (kept from an earlier question)" if group[0].file.startswith("results/") else ""
    return words[group[0].kind] + earlier


def _say_images(result: Result) -> str:
    step = result.facts.get("step")
    at = "" if step is None else f" The student is the checkpoint of step {step:,}."
    return (
        f"{result.val_images:,} images to judge on, {result.train_images:,} to learn from, "
        f"{len(result.classes):,} classes.{at}"
    )


def _bars(entries: Sequence[Entry], evaluation: str) -> Html:
    bars = [_bar(entry, evaluation) for entry in entries if evaluation in entry.shares or entry.not_available]
    return figure(bar_chart(bars, title=evaluation, whole=True), evaluation)


def _bar(entry: Entry, evaluation: str) -> Bar:
    share, colour = entry.shares.get(evaluation), _COLOURS.get(entry.role, "green")
    if share is None:
        return Bar(name=_short(entry), value=None, words="not available", colour=colour)
    return Bar(
        name=_short(entry),
        value=100 * share.value,
        low=100 * share.low,
        high=100 * share.high,
        dots=tuple(100 * one for one in share.draws),
        colour=colour,
    )


def _short(entry: Entry) -> str:
    return {"student, weights averaged": "student (average)"}.get(
        entry.name, entry.role if entry.role == "teacher" else entry.name
    )


def _say_name(entry: Entry) -> Html:
    missing = entry.not_available
    return joined([entry.name, None if missing is None else tag("small", f"not available: {missing}")])


def _say(entry: Entry, evaluation: str) -> Html | str:
    share = entry.shares.get(evaluation)
    if share is None:
        return "–"
    return joined([f"{100 * share.value:.1f} ", tag("small", f"{100 * share.low:.1f}–{100 * share.high:.1f}")])


def _classes(entries: Sequence[Entry], evaluations: Sequence[str], classes: Sequence[str]) -> Html | None:
    """The share of each class: of one evaluation in sight, of the others to be unfolded."""
    strips = []
    for evaluation in sorted(evaluations, key=lambda name: name != _MAIN):
        rows = {_short(entry): entry.per_class[evaluation] for entry in entries if evaluation in entry.per_class}
        strip = heat_strip(rows, classes, f"{evaluation}, by class")
        strips += [] if strip is None else [strip]
    if not strips:
        return None
    return joined([strips[0], unfolding("Other evaluations by class", strips[1:]) if strips[1:] else None])
