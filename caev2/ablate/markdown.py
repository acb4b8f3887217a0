"""Grids as Markdown: a section for each, and one page for all of them."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from caev2.ablate.differences import Finding, find_differences, place_of
from caev2.ablate.outcome import GridOutcome
from caev2.ablate.sentences import say_chance, say_findings
from caev2.ablate.stored import StoredTarget
from caev2.ablate.wording import (
    is_accuracy,
    join,
    say_axis,
    say_difference,
    say_settings,
    say_value,
    say_verdict,
    title_of,
)

Pictures = Mapping[str, str]
"""What they show, and where they lie as seen from the page."""

_COLUMNS = 110
_NOTHING_OF_IMAGENET = "Its numbers say nothing about ImageNet."
_READING = (
    "The variants of a grid differ in what its axes set and in nothing else. Numbers are means over seeds ± one "
    "standard deviation. kNN and linear probe are shares of right answers on images that training never saw. "
    "Cosines and the loss come from training itself: they say how well targets are met, not how good the features are.",
    "Each variant is compared with the baseline seed by seed: two runs of one seed share what the seed decides, such "
    "as the order of images, so some of the luck cancels. A difference is its mean over these pairs ± its standard "
    "error.",
    "A direction is claimed only where the difference exceeds twice its standard error. Otherwise it says `not "
    "resolved`: the truth may lie on either side. One pair has no standard error, nor have pairs that all differ by "
    "exactly the same, so those are not resolved either.",
    "The error tells how much other seeds would change a difference. It does not tell what other images, a longer "
    "schedule or another learning rate would. Comparisons of a grid share their baseline, so its luck is in all of "
    "them.",
    "Loss and cosines are not compared where they are measured on something else: another target, another store, and "
    "for the loss other masks or other settings of the loss.",
)


def table_page(outcome: GridOutcome, pictures: Pictures, notes: Sequence[str] = ()) -> str:
    """A grid as a page of its own."""
    chance = [_prose(one) for one in say_chance([outcome])]
    return "\n\n".join([f"# {outcome.title}", *_section(outcome, pictures), *chance, _bullets(_READING), *notes]) + "\n"


def ablations_page(outcomes: Sequence[GridOutcome], pictures: Mapping[str, Pictures], notes: Sequence[str] = ()) -> str:
    """All grids on one page: what was found, how much there is to it, then grid by grid.

    Args:
        outcomes: The grids, in the order of the page.
        pictures: By grid.
        notes: What else there is to say.
    """
    blocks = ["# Ablations", _say_amount(outcomes), *map(_prose, say_chance(outcomes)), *notes]
    blocks += ["## What was found", _summary(outcomes), "## How to read this page", _bullets(_READING)]
    for outcome in outcomes:
        blocks += [
            f'<a id="{_anchor(outcome)}"></a>',
            f"## {outcome.title}",
            *_section(outcome, pictures[outcome.grid]),
        ]
    return "\n\n".join(blocks) + "\n"


def _section(outcome: GridOutcome, pictures: Pictures) -> list[str]:
    """The blocks of a grid, without its heading."""
    headlines = [metric for metric in outcome.metrics if is_accuracy(metric)]
    others = [metric for metric in outcome.metrics if metric not in headlines]
    blocks = [_about(outcome)]
    if headlines or others:
        sentences = [one for metric in headlines or others for one in say_findings(outcome, metric)]
        blocks.append(_bullets(sentences) or "There is nothing to compare.")
    if headlines:
        blocks.append(_table(outcome, headlines))
    if others:
        blocks += [*(["In training:"] if headlines else []), _table(outcome, others)]
    return [*blocks, *_stored(outcome), *_failures(outcome), *_show(pictures)]


def _about(outcome: GridOutcome) -> str:
    baseline = join([f"{say_axis(axis.name)} = {axis.baseline}" for axis in outcome.axes]) or outcome.baseline
    parts = [
        f"The claim: {outcome.claim.rstrip('.')}." if outcome.claim else "",
        f"Source: {outcome.source.rstrip('.')}." if outcome.source else "",
        _say_form(outcome),
        f"Recipe: `{outcome.recipe}`." if outcome.recipe else "",
        f"Set for all runs: {say_settings(outcome.overrides)}." if outcome.overrides else "",
        _say_judged([outcome]),
        _say_seeds(outcome.seeds),
        f"The baseline is {baseline}.",
    ]
    return _prose(" ".join(part for part in parts if part))


def _say_form(outcome: GridOutcome) -> str:
    if outcome.quick:
        return f"This is the quick form of the grid `{outcome.grid}`: small, short runs. {_NOTHING_OF_IMAGENET}"
    return f"This is the {'full form of the ' if outcome.built_in else ''}grid `{outcome.grid}`."


def _prose(text: str) -> str:
    """Lines of a readable length. None begins with a number and a full stop, which would begin a list."""
    glued = re.sub(r" (\d+[.)])(?= |$)", "\0\\1", text.replace(" ± ", "\0±\0"))
    lines = textwrap.wrap(glued, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join("* " + _prose(one).replace("\n", "\n  ") for one in sentences)


def _say_judged(outcomes: Sequence[GridOutcome]) -> str:
    counts = sorted({one.val_images for one in outcomes if one.val_images is not None})
    classes = sorted({one.classes for one in outcomes if one.classes})
    if not counts:
        return ""
    words = f"Each run was judged on {join([f'{count:,}' for count in counts], ' or ')} images"
    if len(classes) != 1:
        return words + "."
    return f"{words} of {classes[0]:,} classes; one guess in {classes[0]:,} is right."


def _say_seeds(seeds: Sequence[int]) -> str:
    return f"{'Seeds' if len(seeds) > 1 else 'One seed'}: {join([str(seed) for seed in seeds])}."


def _table(outcome: GridOutcome, metrics: Sequence[str]) -> str:
    """A line for each variant: its settings, then value and difference for each metric."""
    columns = [say_axis(axis.name) for axis in outcome.axes] or ["variant"]
    for metric in metrics:
        unit = ", %" if is_accuracy(metric) else ""
        columns += [f"{title_of(metric)}{unit}", "difference, points" if unit else "difference"]
    found = {(one.variant, one.metric): one for one in find_differences(outcome)}
    rows = []
    for variant in outcome.variants:
        names = list(place_of(outcome, variant)) or [variant]
        numbers = [cell for metric in metrics for cell in _cells(found[variant, metric])]
        if variant == outcome.baseline:
            names = [f"**{name}**" for name in names]
        rows.append([*names, *numbers])
    return _table_of(columns, rows, words=len(columns) - 2 * len(metrics))


def _table_of(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """Lines of a table, whose first columns are words and the others numbers."""
    aligned = [":---"] * words + ["---:"] * (len(columns) - words)
    return "\n".join("| " + " | ".join(map(_escape, cells)) + " |" for cells in (columns, aligned, *rows))


def _stored(outcome: GridOutcome) -> list[str]:
    """What codecs save and lose, where runs learned from several."""
    if len({one.codec for one in outcome.targets}) < 2:
        return []
    about = (
        "What the codecs save and lose. Errors are shares of the latents' own spread (‖x − x̂‖² / ‖x − mean‖²), cosines "
        "are between what is left without the mean; all were measured on images that did not calibrate the codec. A "
        "codec that learns nothing from images was not measured."
    )
    rows = [_stored_row(one) for one in outcome.targets]
    return [_prose(about), _table_of(_STORED, rows, words=2)]


_STORED = (
    "store",
    "codec",
    "bytes of a row",
    "error, class token",
    "error, patches",
    "cosine, patches",
    "its 1st percentile",
)


def _stored_row(one: StoredTarget) -> tuple[str, ...]:
    class_token, patches = (None, None) if one.quality is None else (one.quality.class_token, one.quality.patch_tokens)
    errors = [figures and figures.relative_error for figures in (class_token, patches)]
    cosines = (None, None) if patches is None else (patches.centred_cosine_mean, patches.centred_cosine_p1)
    return (
        one.store,
        one.codec,
        f"{one.row_bytes:,}",
        *("–" if error is None else f"{100 * error:.3g} %" for error in errors),
        *("–" if cosine is None else f"{cosine:.4f}" for cosine in cosines),
    )


def _cells(finding: Finding) -> tuple[str, str]:
    difference = finding.difference
    if difference is None:
        return say_value(finding), "baseline"
    verdict = say_verdict(difference.verdict, finding.metric)
    if difference.mean is None:
        return say_value(finding), f"{verdict}: {difference.reason}"
    return say_value(finding), f"{say_difference(difference, finding.metric)}: {verdict}"


def _escape(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def _failures(outcome: GridOutcome) -> list[str]:
    failed = [run for run in outcome.runs if run.failure is not None]
    if not failed:
        return []
    reasons = _bullets([f"`{run.name}`: {' '.join((run.failure or '').split())}" for run in failed])
    return [f"Failed runs ({len(failed)}), which are in no number above:", reasons]


def _show(pictures: Pictures) -> list[str]:
    """The first picture is seen, the others are a click away."""
    if not pictures:
        return []
    (title, place), *others = pictures.items()
    links = ",\n".join(f"[{name}]({where})" for name, where in others)
    return [f"![{title}]({place})", *([f"More pictures:\n{links}."] if links else [])]


def _summary(outcomes: Sequence[GridOutcome]) -> str:
    """What each grid says of the most telling metric."""
    rows = []
    for outcome in outcomes:
        found = " ".join(say_findings(outcome, outcome.metrics[0], with_numbers=False)) if outcome.metrics else ""
        claim = outcome.claim or outcome.title
        rows.append((f"[{outcome.grid}](#{_anchor(outcome)})", claim, found or "nothing to compare"))
    return _table_of(("grid", "claim", "what was found"), rows, words=3)


def _anchor(outcome: GridOutcome) -> str:
    """Where the section of a grid begins; a space would end a link."""
    return outcome.grid.replace(" ", "-")


def _say_amount(outcomes: Sequence[GridOutcome]) -> str:
    runs = {run.fingerprint: run for outcome in outcomes for run in outcome.runs}
    failed = sum(run.failure is not None for run in runs.values())
    quick = sum(outcome.quick for outcome in outcomes)
    which = "All grids are" if quick == len(outcomes) else f"Of the grids {quick} {'is' if quick == 1 else 'are'}"
    parts = [
        f"Grids: {len(outcomes)}. Different runs: {len(runs)}, of which {failed or 'none'} failed; a run that several "
        "grids need was trained once.",
        _say_seeds(sorted({seed for outcome in outcomes for seed in outcome.seeds})),
        _say_judged(outcomes),
        f"{which} in their quick form: small, short runs, whose numbers say nothing about ImageNet." if quick else "",
    ]
    return _prose(" ".join(part for part in parts if part))
