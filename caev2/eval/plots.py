"""Pictures of runs: curves, grids of images, accuracies. PNG files, made without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from caev2.eval.drawing import BLUE, GREEN, GREY, ORANGE, new_figure, save, undress
from caev2.eval.interval import Accuracy

_SUBJECT_COLOURS = {"pixels": "#bbbbbb", "random start": GREY, "student": BLUE, "teacher": ORANGE}


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The loss, and the cosine of each kind of token, over the steps of a run's log."""
    records = [record for record in records if "loss" in record]  # others are judgements
    figure = new_figure(9.0, 3.6)
    loss, cosine = figure.subplots(1, 2)
    steps = [record["step"] for record in records]
    loss.plot(steps, [record["loss"] for record in records], color=GREY, linewidth=1.5)
    loss.set(xlabel="step", title="loss: mean of 1 − cosine over all tokens")
    loss.set_ylim(bottom=0)
    for kind, colour in (("class", GREEN), ("visible", BLUE), ("masked", ORANGE)):
        values = [record[f"cosine_{kind}"] for record in records]
        cosine.plot(steps, values, color=colour, linewidth=1.5, label=f"{kind} {values[-1]:.3f}" if values else kind)
    cosine.set(xlabel="step", title="cosine to the teacher's latents")
    cosine.set_ylim(top=1)
    cosine.legend(frameon=False, loc="lower right", title="token, at the end")
    for axes in (loss, cosine):
        undress(axes)
    return save(figure, path)


def plot_grid(
    columns: Mapping[str, UInt8[np.ndarray, "image height width 3"]], rows: Sequence[str], path: Path
) -> Path:
    """Images side by side: a line for each of `rows`, a column for each of `columns`; patches stay squares."""
    figure = new_figure(1.7 * len(columns) + 0.9, 1.7 * len(rows) + 0.35)
    places = figure.subplots(len(rows), len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            axes = places[row, column]
            axes.imshow(image, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(title, fontsize=11, parse_math=False)  # names of files: a $ is a $
            if column == 0:
                place = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 8}
                axes.set_ylabel(rows[row], fontsize=11, parse_math=False, **place)
    return save(figure, path)


def plot_accuracy(accuracy: Mapping[str, Mapping[str, Accuracy]], path: Path) -> Path:
    """Bars with 95 % intervals: a group for each evaluation, in it a bar for everybody it judges."""
    subjects = list(dict.fromkeys(subject for judged in accuracy.values() for subject in judged))
    figure = new_figure(max(7.0, 0.33 * len(accuracy) * len(subjects)), 3.8)
    axes = figure.subplots()
    width = 0.84 / len(subjects)
    for place, subject in enumerate(subjects):
        found = {group: judged[subject] for group, judged in enumerate(accuracy.values()) if subject in judged}
        centres = np.array(list(found)) + (place - (len(subjects) - 1) / 2) * width
        values = [100 * one.value for one in found.values()]
        reach = [
            [100 * (one.value - one.low) for one in found.values()],
            [100 * (one.high - one.value) for one in found.values()],
        ]
        colour = _SUBJECT_COLOURS.get(subject, GREEN)
        axes.bar(centres, values, width * 0.94, color=colour, label=subject, yerr=reach, ecolor="#333333", capsize=2)
        for centre, value, one in zip(centres, values, found.values(), strict=True):
            above = (centre, 100 * one.high)
            axes.annotate(f"{value:.0f}", above, xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(range(len(accuracy)), list(accuracy))
    axes.set(ylabel="%", ylim=(0, 108), title="Evaluations, with intervals")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(subjects))
    axes.tick_params(axis="x", length=0)
    undress(axes)
    return save(figure, path)
