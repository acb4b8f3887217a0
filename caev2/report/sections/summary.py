"""What was trained on what, the numbers that matter, and what they do and do not say."""

from collections import Counter
from collections.abc import Mapping, Sequence

from caev2.pretrain.foresight.cost import count_parameters
from caev2.pretrain.identity import RunIdentity
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.files import Gap, without_folders
from caev2.report.reading.results import Entry, Result, Share
from caev2.report.reading.runs import RunFolder
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.sections.overview import overview
from caev2.report.sections.probes import grouped, missing_results, say_length
from caev2.report.sections.section import NO_RUN, Section

_MOST_TILES = 6
_ABOUT_RUNS = "Two accuracies count as apart only where their 95 % intervals do not touch."
_ABOUT_GRIDS = "What each grid compares, seed by seed, at a glance; the numbers and their words are below."


def summary_section(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder], grids: Sequence[Grid]) -> Section:
    """A paragraph, tiles and sentences for each run; a sentence or two for each grid.

    Args:
        runs: In the order of the page.
        stores: By the name of the run.
        grids: Of studies.
    """
    body: list[Html] = []
    for run in runs:
        body += [tag("h3", run.name)] if len(runs) > 1 else []
        body += _summarise(run, stores[run.name])
    body += overview(grids)
    return Section(
        id="summary",
        title="Summary",
        about=_ABOUT_RUNS if runs else _ABOUT_GRIDS,
        body=tuple(body),
        gaps=(
            *(() if runs else (NO_RUN,)),
            *(missing_results(unjudged) if (unjudged := [run for run in runs if not run.results]) else ()),
            *(Gap(what=f"{run.name}: {gap.what}", command=gap.command) for run in runs for gap in run.gaps_of("run")),
        ),
    )


def _summarise(run: RunFolder, store: StoreFolder) -> list[Html]:
    latest = [result for result in run.results if not result.file.startswith("results/")]
    parts = [] if run.identity is None else [tag("p", say_training(run.identity, run, store), class_="lead")]
    groups = grouped(latest)
    tiles = [tile for group in groups for tile in _tiles(group, groups, run.latest_step)][:_MOST_TILES]
    parts += [tag("div", tiles, class_="tiles")] if tiles else []
    sentences = [one for group in groups for one in say_order(_own(group), _evaluations(group), _label(group, groups))]
    sentences = [*_say_steps(latest, run.latest_step), *_merged(sentences)]
    if run.demo is not None and run.demo.get("quick"):
        sentences.append(
            "This was a quick demo: it shows that everything works. A student of so few steps has learnt nothing."
        )
    return parts + ([tag("ul", [tag("li", one) for one in sentences], class_="sentences")] if sentences else [])


def _say_steps(results: Sequence[Result], latest: int) -> list[str]:
    """Which numbers are of an older checkpoint than the run has come to."""
    by_step: dict[int, list[str]] = {}
    for result in results:
        if result.facts and result.facts["step"] != latest:
            by_step.setdefault(result.facts["step"], []).append(result.file)
    return [
        f"Of step {step:,}, and not of the {latest:,} that the run has come to, are the numbers of {', '.join(files)}."
        for step, files in by_step.items()
    ]


def say_training(identity: RunIdentity, run: RunFolder, store: StoreFolder) -> str:
    """Who learned what, from what, for how long."""
    model, recipe, target = identity.model, identity.recipe, identity.target
    size = f"{count_parameters(model) / 1e6:,.1f} M parameters"
    shape = f"{model.depth} blocks of width {model.width}, {model.image_px} px in patches of {model.patch_px}"
    student = f"A student of {size} ({shape})"
    if identity.imported:
        return f"{student} whose weights were trained elsewhere and imported."
    teacher = without_folders(str(target.get("teacher", {}).get("name", "a teacher")))
    taught = f"learned the {target.get('tap', '?')} latents of the teacher {teacher}"
    if identity.online is not None:
        source = f"made anew in every step (--online {identity.online})"
    elif store.manifest is None:
        source = "from a store that is not at hand"
    else:
        views = min(recipe.get("views") or store.manifest.views, store.manifest.views)
        source = f"from a store of {store.manifest.images:,} images in {views} view{'s' if views > 1 else ''} each"
    precision = recipe.get("precision", "")
    told = f", {run.steps[-1]['step'] + 1:,} steps" if run.steps else ""
    length = f"for {recipe.get('epochs', '?')} epochs in batches of {recipe.get('batch_size', '?')} ({precision}{told})"
    return f"{student} {taught} {source}, {length}."


def _own(group: Sequence[Result]) -> dict[str, Entry]:
    """The student itself, its own random start and its own teacher; who is there twice is left to the table."""
    entries = [entry for result in group for entry in result.entries if entry.own is not None]
    counted = Counter(entry.own for entry in entries)
    return {str(entry.own): entry for entry in entries if counted[entry.own] == 1}


def _evaluations(group: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in group for name in result.evaluations))


def _label(group: Sequence[Result], groups: Sequence[Sequence[Result]]) -> str:
    """What tells the evaluations of a table from those of others of its kind."""
    alike = [one for one in groups if one[0].kind == group[0].kind == "finetune"]
    return f", {say_length(group[0])}" if len(alike) > 1 else ""


def _tiles(group: Sequence[Result], groups: Sequence[Sequence[Result]], latest: int) -> list[Html]:
    """The student's number in each evaluation, between its start and its teacher; few-shot ones are in the tables."""
    own = _own(group)
    student = own.get("student")
    if student is None:
        return []
    facts = next((result.facts for result in group if student in result.entries), {})
    step = facts["step"] if facts and facts["step"] != latest else None
    tiles = []
    for name in _evaluations(group):
        if name in student.shares and not name.endswith("-shot"):
            others = {role: own[role].shares.get(name) for role in ("random start", "teacher") if role in own}
            tiles.append(_tile(name + _label(group, groups), student.shares[name], others, step))
    return tiles


def _tile(name: str, share: Share, others: Mapping[str, Share | None], step: int | None) -> Html:
    found, known = share.accuracy, [(role, one.accuracy) for role, one in others.items() if one is not None]
    beside = [tag("span", role, tag("b", f"{100 * one.value:.1f}")) for role, one in known]
    return tag(
        "div",
        tag("p", name, class_="what"),
        tag("p", f"{100 * found.value:.1f}", tag("span", "%"), class_="big"),
        tag("p", f"{100 * found.low:.1f}–{100 * found.high:.1f}", class_="reach"),
        None if step is None else tag("p", f"at step {step:,}, not the latest", class_="reach"),
        tag("p", beside, class_="beside") if beside else None,
        class_="tile",
    )


def say_order(own: Mapping[str, Entry], evaluations: Sequence[str], label: str = "") -> list[str]:
    """What the intervals say of the student beside its random start and its teacher.

    Args:
        own: The student, its random start and its teacher, as far as they were judged.
        evaluations: In which evaluations.
        label: Behind the name of each.
    """
    student = own.get("student")
    if student is None:
        return []
    sentences = []
    for role, words in (("random start", "its random start"), ("teacher", "its teacher")):
        other = own.get(role)
        if other is None:
            continue
        names = [name for name in evaluations if name in student.shares and name in other.shares]
        found = {name: _relation(student.shares[name], other.shares[name]) for name in names}
        for relation, verb in (("above", "is above"), ("below", "is below"), ("", "Not resolved")):
            some = [name + label for name in names if found[name] == relation]
            if some and relation:
                sentences.append(f"The student {verb} {words}: {', '.join(some)}.")
            elif some:
                sentences.append(f"Not resolved between the student and {words}: {', '.join(some)}.")
    return sentences


def _relation(one: Share, other: Share) -> str:
    return "above" if one.is_above(other) else "below" if other.is_above(one) else ""


def _merged(sentences: Sequence[str]) -> list[str]:
    """Sentences that begin alike as one."""
    merged: dict[str, list[str]] = {}
    for sentence in sentences:
        head, _, tail = sentence.partition(": ")
        merged.setdefault(head, []).append(tail.removesuffix("."))
    return [f"{head}: {', '.join(tails)}." for head, tails in merged.items()]
