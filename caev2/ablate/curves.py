"""How the runs of a grid got where they are: loss, cosines and nearest neighbours over epochs, from their logs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from caev2.ablate.differences import is_one_measure
from caev2.ablate.outcome import GridOutcome, RunOutcome
from caev2.ablate.plots import COLOURS, wrap
from caev2.ablate.wording import label_of, number_of
from caev2.errors import CheckpointError
from caev2.eval.drawing import ORANGE, new_figure, save, undress
from caev2.pretrain.telling.log import read_log

PANELS = {
    "loss": "loss",
    "cosine_masked": "cosine, masked tokens",
    "cosine_visible": "cosine, visible tokens",
    "knn_percent": "kNN, %",
}
"""Words of the log, and what they are called."""
_ON_THE_WAY = "knn_percent"
Curve = dict[float, float]


def read_curves(outcome: GridOutcome, runs: Path, warn: Callable[[str], None]) -> dict[str, dict[str, Curve]]:
    """By word of the log and variant: the mean over seeds at every epoch that all logged seeds have.

    Runs that failed, whose folder is gone, or whose log is damaged are left out: nothing else depends on a log. So is
    kNN on the way where one variant of several has it: another grid asked for it, and there is nothing to compare.

    Args:
        outcome: The grid.
        runs: Folder of the run folders, by fingerprint.
        warn: Told of logs that are damaged.
    """
    found: dict[str, dict[str, Curve]] = {name: {} for name in PANELS}
    for variant in outcome.variants:
        logs = [_of_run(run, runs, warn) for run in outcome.of(variant) if run.failure is None]
        for name, by_variant in found.items():
            curves = [log[name] for log in logs if log[name]]
            if curves:
                by_variant[variant] = _mean(curves)
    if len(found[_ON_THE_WAY]) < min(2, len(found["loss"])):
        del found[_ON_THE_WAY]
    return {name: by_variant for name, by_variant in found.items() if by_variant}


def _of_run(run: RunOutcome, runs: Path, warn: Callable[[str], None]) -> dict[str, Curve]:
    """The curves of a finished run: its last line is that of its last step, at the end of its last epoch."""
    try:
        records = read_log(runs / run.fingerprint)
    except CheckpointError as problem:
        warn(f"{problem} Until then the curves go without this run.")
        records = []
    steps = max((record["step"] for record in records), default=0) + 1
    epochs = run.recipe.get("epochs") or 1
    return {
        name: {
            (record["step"] + 1) * epochs / steps: float(record[name])
            for record in records
            if record.get(name) is not None and record.get("applied", True)
        }
        for name in PANELS
    }


def _mean(curves: Sequence[Curve]) -> Curve:
    shared = set.intersection(*(set(curve) for curve in curves))
    return {epoch: fmean(curve[epoch] for curve in curves) for epoch in sorted(shared)}


def plot_curves(outcome: GridOutcome, found: Mapping[str, Mapping[str, Curve]], path: Path) -> Path:
    """A panel for each word of the log, a line for each variant."""
    variants = [variant for variant in outcome.variants if any(variant in curves for curves in found.values())]
    styles, labels = _styles(outcome), {one: wrap(label_of(outcome, one)) for one in variants}
    columns = 2 if len(found) > 1 else 1
    rows = -(-len(found) // columns)
    beside = max(map(_columns_of, labels.values()))
    per_line = max(1, min(len(variants), int(100 / (beside + 8))))
    lines = -(-len(variants) // per_line) * max(1 + label.count("\n") for label in labels.values())
    figure = new_figure(9.0 if columns == 2 else 5.5, 2.9 * rows + 0.3 + 0.2 * lines)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, curves) in zip(panels, found.items(), strict=False):
        for variant, curve in curves.items():
            axes.plot(list(curve), list(curve.values()), **styles[variant], **_dots(curve))
        axes.set(xlabel="epoch", title=_title(outcome, name), xlim=(0, None))
        undress(axes)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    handles = [_handle(styles[variant], labels[variant]) for variant in variants]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=per_line, fontsize=9)
    return save(figure, path)


def _title(outcome: GridOutcome, name: str) -> str:
    return PANELS[name] if is_one_measure(outcome, name) else f"{PANELS[name]} (as each variant defines it)"


def _columns_of(label: str) -> int:
    return max(map(len, label.splitlines()), default=1)


def _dots(curve: Curve) -> dict[str, Any]:
    """Few points are seen each; many are a line."""
    return {"marker": "o", "markersize": 3.5} if len(curve) <= 12 else {}


def _handle(style: dict[str, Any], label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def _styles(outcome: GridOutcome) -> dict[str, dict[str, Any]]:
    """The baseline is orange and thick; numbers of a single axis go from light to dark; others are told by colour."""
    others = [variant for variant in outcome.variants if variant != outcome.baseline]
    styles: dict[str, dict[str, Any]] = {
        variant: {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", "--", ":")[place // len(COLOURS) % 3]}
        for place, variant in enumerate(others)
    }
    for variant in styles:
        styles[variant] |= {"linewidth": 1.3}
    styles |= _shades(outcome, others)
    return {**styles, outcome.baseline: {"color": ORANGE, "linewidth": 2.2, "linestyle": "-"}}


def _shades(outcome: GridOutcome, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    if len(outcome.axes) != 1:
        return {}
    from matplotlib import colormaps

    numbers = {one: number_of(outcome.of(one)[0].settings.get(outcome.axes[0].name)) for one in variants}
    ordered = sorted((number, one) for one, number in numbers.items() if number is not None)
    share = 1 / max(1, len(ordered) - 1)
    return {
        one: {"color": colormaps["viridis_r"](0.12 + 0.88 * place * share), "linewidth": 1.4}
        for place, (_, one) in enumerate(ordered)
    }
