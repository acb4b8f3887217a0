"""What was trained on what, the numbers that matter, and what they do and do not say."""

from collections.abc import Mapping, Sequence

from caev2.ablate.sentences import say_findings
from caev2.pretrain.foresight.cost import count_parameters
from caev2.pretrain.identity import RunIdentity
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.files import Gap, without_folders
from caev2.report.reading.results import Entry, Result, Share
from caev2.report.reading.runs import RunFolder
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.sections.probes import grouped, missing_results
from caev2.report.sections.section import Section

_MOST_TILES = 6


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
    body += [one for grid in grids if (one := _say_grid(grid)) is not None]
    return Section(
        id="summary",
        title="Summary",
        about="Two accuracies count as apart only where their 95 % intervals do not touch.",
        body=tuple(body),
        gaps=(missing_results(unjudged) if (unjudged := [run for run in runs if not run.results]) else ())
        + tuple(
            Gap(what=f"{run.name}: {gap.what}", command=gap.command)
            for run in runs
            for gap in run.gaps
            if "run.json" in gap.what
        ),
    )


def _summarise(run: RunFolder, store: StoreFolder) -> list[Html]:
    latest = [result for result in run.results if not result.file.startswith("results/")]
    parts = [] if run.identity is None else [tag("p", say_training(run.identity, run, store), class_="lead")]
    tiles = _tiles(latest)
    parts += [tag("div", tiles, class_="tiles")] if tiles else []
    sentences = [
        sentence for group in grouped(latest) for sentence in say_order(_by_role(group), _all_evaluations(group))
    ]
    if run.demo is not None and run.demo.get("quick"):
        sentences.append(
            "This was a quick demo: it shows that everything works. A student of so few steps has learnt nothing."
        )
    parts += (
        [tag("ul", [tag("li", sentence) for sentence in _merged(sentences)], class_="sentences")] if sentences else []
    )
    return parts


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


def _by_role(group: Sequence[Result]) -> dict[str, Entry]:
    """One of each role; the student, and not the average of its weights."""
    entries = [entry for result in group for entry in result.entries if entry.name != "student, weights averaged"]
    return {entry.role: entry for entry in reversed(entries)}


def _all_evaluations(group: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in group for name in result.evaluations))


def _tiles(results: Sequence[Result]) -> list[Html]:
    """The student's number in each evaluation, between its start and its teacher; few-shot ones are in the tables."""
    tiles = []
    for group in grouped(results):
        roles = _by_role(group)
        student = roles.get("student")
        if student is None:
            continue
        for name in _all_evaluations(group):
            if name in student.shares and not name.endswith("-shot") and len(tiles) < _MOST_TILES:
                others = {role: roles[role].shares.get(name) for role in ("random start", "teacher") if role in roles}
                tiles.append(_tile(name, student.shares[name], others))
    return tiles


def _tile(name: str, share: Share, others: Mapping[str, Share | None]) -> Html:
    beside = [tag("span", role, tag("b", f"{100 * one.value:.1f}")) for role, one in others.items() if one is not None]
    return tag(
        "div",
        tag("p", name, class_="what"),
        tag("p", f"{100 * share.value:.1f}", tag("span", "%"), class_="big"),
        tag("p", f"{100 * share.low:.1f}–{100 * share.high:.1f}", class_="reach"),
        tag("p", beside, class_="beside") if beside else None,
        class_="tile",
    )


def say_order(roles: Mapping[str, Entry], evaluations: Sequence[str]) -> list[str]:
    """What the intervals say of the student beside its random start and its teacher.

    Args:
        roles: Who was judged, by role.
        evaluations: In which evaluations.
    """
    student = roles.get("student")
    if student is None:
        return []
    sentences = []
    for role, words in (("random start", "its random start"), ("teacher", "its teacher")):
        other = roles.get(role)
        if other is None:
            continue
        names = [name for name in evaluations if name in student.shares and name in other.shares]
        found = {name: _relation(student.shares[name], other.shares[name]) for name in names}
        for relation, verb in (("above", "is above"), ("below", "is below"), ("", "Not resolved")):
            some = [name for name in names if found[name] == relation]
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
        merged.setdefault(head, []).extend([tail.removesuffix(".")] if tail and not head.startswith("This") else [])
    return [f"{head}: {', '.join(tails)}." if tails else sentence_of(head, sentences) for head, tails in merged.items()]


def sentence_of(head: str, sentences: Sequence[str]) -> str:
    """The sentence that begins so."""
    return next(sentence for sentence in sentences if sentence.startswith(head))


def _say_grid(grid: Grid) -> Html | None:
    """What a grid resolves in its first metric."""
    outcome = grid.outcome
    if outcome is None or not outcome.metrics:
        return None
    said = " ".join(say_findings(outcome, outcome.metrics[0], with_numbers=False)) or "Nothing to compare."
    quick = " The quick form: its numbers say little of the full one." if outcome.quick else ""
    head = f"{without_folders(outcome.title)}. "
    words = [tag("strong", head), without_folders(said), tag("span", quick, class_="images")]
    return tag("p", words, class_="grid-line")
