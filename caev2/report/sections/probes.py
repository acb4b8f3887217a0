"""Who is worth what: pixels, random start, student and teacher side by side."""

import json
from collections import Counter
from collections.abc import Sequence

from caev2.report.drawing.bars import Bar, bar_chart
from caev2.report.drawing.frame import figure
from caev2.report.drawing.markup import Html, joined, tag
from caev2.report.drawing.strip import WORDY, heat_strip
from caev2.report.reading.files import Gap
from caev2.report.reading.results import Entry, Result
from caev2.report.reading.runs import RunFolder
from caev2.report.sections.section import Section, charts, gaps_of, table, unfolding

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
        found = [_show(group, "h4" if len(runs) > 1 else "h3") for group in grouped(run.results)]
        if found:
            body += [tag("h3", run.name)] if len(runs) > 1 else []
            body += found
    return Section(
        id="probes",
        title="Probes",
        about="What frozen features, and fine-tuned encoders, are worth on images that nothing was trained on. "
        "Whiskers: 95 % intervals; of few-shot probes one standard deviation of the draws, which are the dots.",
        body=tuple(body),
        gaps=(*gaps_of(runs, "probes"), *missing_results(runs)),
    )


def missing_results(runs: Sequence[RunFolder]) -> tuple[Gap, ...]:
    """What runs have not been asked yet, with the commands."""
    gaps = []
    for kind, words, command in _WANTED:
        lacking = [run.name for run in runs if not any(result.kind == kind for result in run.results)]
        if lacking:
            of = "" if len(runs) == 1 else f" of {', '.join(lacking)}"
            gaps.append(Gap(what=f"{words}{of} yet.", command=command))
    return tuple(gaps)


def grouped(results: Sequence[Result]) -> list[list[Result]]:
    """Results that belong in one table: fine-tunings on the same images, alike but for the seed; others alone."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(_question(result) if result.kind == "finetune" else (result.file,), []).append(result)
    return list(groups.values())


def _question(result: Result) -> tuple[str, ...]:
    recipe = {name: value for name, value in result.content["settings"]["finetune"].items() if name != "seed"}
    images = result.content["train_digest"], result.content["val_digest"]
    return (json.dumps(recipe, sort_keys=True), *images)


def _show(group: Sequence[Result], heading: str) -> Html:
    first = group[0]
    entries = [entry for result in group for entry in result.entries]
    named = list(zip(short_names(entries), entries, strict=True))
    evaluations = list(dict.fromkeys(name for result in group for name in result.evaluations))
    rows = [(_say_name(entry, entries), *(_say(entry, name) for name in evaluations)) for entry in entries]
    is_folded = first.file.startswith("results/") and len(first.classes) > WORDY  # of the latest one alone
    numbers = table(("", *evaluations), rows, about=say_title(group))
    drawn = [_bars(named, name) for name in evaluations]
    shown = [charts(drawn), numbers] if drawn else [numbers]
    return tag(
        "article",
        tag(heading, say_title(group)),
        tag("p", _say_images(first), class_="images"),
        tag("div", shown, class_="pair") if len(drawn) == 1 else shown,
        None if is_folded else _classes(named, evaluations, first.classes),
    )


def say_title(group: Sequence[Result]) -> str:
    """What a table is of."""
    words = {"probe": "Probes of frozen features", "segment": "Segmentation on frozen tokens", "finetune": "Fine-tuned"}
    first = group[0]
    earlier = " (kept from an earlier question)" if first.file.startswith("results/") else ""
    return words[first.kind] + (f" for {say_length(first)}" if first.kind == "finetune" else earlier)


def say_length(tuned: Result) -> str:
    """How long a fine-tuning was."""
    epochs = tuned.content["settings"]["finetune"].get("epochs", "?")
    return f"{epochs} epoch{'s' if epochs != 1 else ''}"


def _say_images(result: Result) -> str:
    step = result.facts.get("step")
    at = "" if step is None else f" The student is the checkpoint of step {step:,}."
    return (
        f"{result.val_images:,} images to judge on, {result.train_images:,} to learn from, "
        f"{len(result.classes):,} classes.{at}"
    )


Named = Sequence[tuple[str, Entry]]
"""Short names, and who they are."""


def _bars(named: Named, evaluation: str) -> Html:
    bars = [_bar(name, entry, evaluation) for name, entry in named if evaluation in entry.shares or entry.not_available]
    return figure(bar_chart(bars, title=evaluation, whole=True), evaluation)


def _bar(name: str, entry: Entry, evaluation: str) -> Bar:
    share, colour = entry.shares.get(evaluation), _COLOURS.get(entry.role, "green")
    if share is None:
        return Bar(name=name, value=None, words="not available", colour=colour)
    return Bar(
        name=name,
        value=100 * share.accuracy.value,
        low=100 * share.accuracy.low,
        high=100 * share.accuracy.high,
        dots=tuple(100 * one for one in share.draws),
        colour=colour,
    )


def short_names(entries: Sequence[Entry]) -> list[str]:
    """A name for each that is nobody else’s: a short one, or the whole one, or with the folder of its fine-tuning."""
    shorts = [_short(entry) for entry in entries]
    wholes = Counter(entry.name for entry in entries)
    names = [
        short if shorts.count(short) == 1 else entry.name if wholes[entry.name] == 1 else f"{entry.name}, {entry.place}"
        for short, entry in zip(shorts, entries, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _short(entry: Entry) -> str:
    if entry.own == "teacher":
        return "teacher"
    return {"student, weights averaged": "student (average)"}.get(entry.name, entry.name)


def _say_name(entry: Entry, entries: Sequence[Entry]) -> Html:
    is_shared = sum(one.name == entry.name for one in entries) > 1
    place = tag("small", f"finetuned/{entry.place}") if is_shared and entry.place else None
    missing = None if entry.not_available is None else tag("small", f"not available: {entry.not_available}")
    return joined([entry.name, place, missing])


def _say(entry: Entry, evaluation: str) -> Html | str:
    share = entry.shares.get(evaluation)
    if share is None:
        return "–"
    found = share.accuracy
    return joined([f"{100 * found.value:.1f} ", tag("small", f"{100 * found.low:.1f}–{100 * found.high:.1f}")])


def _classes(named: Named, evaluations: Sequence[str], classes: Sequence[str]) -> Html | None:
    """The share of each class: of one evaluation in sight, of the others to be unfolded."""
    strips = []
    for evaluation in sorted(evaluations, key=lambda name: name != _MAIN):
        rows = [(name, entry.per_class[evaluation]) for name, entry in named if evaluation in entry.per_class]
        strip = heat_strip(rows, classes, f"{evaluation}, by class")
        strips += [] if strip is None else [strip]
    if not strips:
        return None
    return joined([strips[0], unfolding("Other evaluations by class", strips[1:]) if strips[1:] else None])
