"""What is said of a step: a line of the log, figures for a bar, warnings."""

from typing import Any

from caev2.pretrain.batches import Batch
from caev2.pretrain.step import StepFigures
from caev2.progress import Progress

MAX_SKIPPED = 3
"""Steps in a row without a finite loss and gradient after which a run stops."""
SHOWN = ("loss", "cosine_class", "cosine_visible", "cosine_masked", "images_per_s", "epoch")


def figures_of(figures: StepFigures) -> dict[str, float]:
    """The numbers of a step in the words of the log; they are waited for."""
    alignment = figures.alignment
    return {
        "loss": float(alignment.loss),
        "cosine_class": float(alignment.class_cosine),
        "cosine_visible": float(alignment.visible_cosine),
        "cosine_masked": float(alignment.masked_cosine),
        "grad_norm": float(figures.grad_norm),
    }


def describe_step(batch: Batch, figures: StepFigures, lr: float) -> dict[str, Any]:
    """A line of the log."""
    about = {"step": batch.step, "epoch": batch.epoch, "view": batch.view, "lr": lr}
    return about | figures_of(figures) | {"applied": figures.applied}


def tell_step(progress: Progress, batch: Batch, record: dict[str, Any], skipped: int) -> None:
    """Show a step that was logged; of how many in a row it is the last that were skipped."""
    if batch.drifted is not None:
        progress.warn(
            f"Another image decoder than at extraction: the pixels of {batch.drifted!r} differ by less than half a "
            "grey level. Training goes on; stored crops would end the question."
        )
    if skipped:
        progress.warn(
            f"Step {batch.step} was skipped: loss {record['loss']}, gradient norm {record['grad_norm']}. The weights "
            f"are as before it. {skipped} in a row; a run stops at {MAX_SKIPPED}."
        )
    progress.advance(0, **{name: record[name] for name in SHOWN})
