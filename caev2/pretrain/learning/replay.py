"""A kept step computed once more, with somebody watching where it stops being finite."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caev2.pretrain.learning.kept_step import KeptStep, read_step
from caev2.pretrain.learning.step import Objective, normalise_images, tensor_cores
from caev2.pretrain.learning.target_norm import TargetForm
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.weights.checkpoint import check_fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What came of a step that was computed again."""

    step: int
    epoch: int
    view: int
    precision: str
    device: str
    """Where it was computed now."""
    finite: bool
    """Whether loss and gradients are finite this time."""
    first_not_finite: str | None
    """The first tensor that is not finite, in the order of the computation; none: all are."""
    loss: float
    cosine_class: float
    cosine_visible: float
    cosine_masked: float
    grad_norm: float
    """Of all gradients together, before clipping."""
    grad_norms: dict[str, float]
    """The same of each part of the student."""
    recorded: dict[str, Any]
    """Device, loss, cosines and gradient norm of the run."""


def replay_step(path: Path, device: str = "cpu") -> Replay:
    """Compute forward and backward pass of a kept step again. No weight is changed, nothing is written.

    Args:
        path: What a run that diverged has written.
        device: Where to compute; elsewhere than the run did, the last bits may differ.

    Raises:
        CheckpointError: There is no such file, or it is damaged.
    """
    kept = read_step(path)
    model = CAEv2(kept.model)
    check_fit(path, model, kept.weights)
    model.load_state_dict(kept.weights)
    _restore_generators(kept, device)
    form = TargetForm(kept.loss.target_norm, _tables(kept))
    objective = Objective(model, kept.loss, form, kept.precision).to(device)
    with tensor_cores(device):
        return _compute(kept, objective, kept.batch.to(device), device)


def _tables(kept: KeptStep) -> tuple[np.ndarray, np.ndarray] | None:
    return (kept.form["mean"].numpy(), kept.form["matrix"].numpy()) if kept.form else None


def _compute(kept: KeptStep, objective: Objective, batch: Batch, device: str) -> Replay:
    watch, model = _Watch(), objective.student
    watch.inputs(model, batch, kept.latents)
    watch.listen(model)
    figures = []
    for part, latents in zip(batch.split(kept.accumulate), kept.latents.chunk(kept.accumulate), strict=True):
        alignment = objective(normalise_images(part.crops), latents.to(device), part.visible, part.masked, part.keep)
        watch.look("the loss", alignment.loss)
        (alignment.loss / kept.accumulate).backward()
        figures.append(torch.stack([alignment.loss.detach(), *alignment[1:]]))
    loss, class_cosine, visible_cosine, masked_cosine = torch.stack(figures).mean(0)
    total = _gradient_norm(model)
    watch.look("norm of all gradients", total)
    return Replay(
        step=batch.step,
        epoch=batch.epoch,
        view=batch.view,
        precision=kept.precision,
        device=device,
        finite=bool(loss.isfinite() & total.isfinite()),
        first_not_finite=watch.first,
        loss=float(loss),
        cosine_class=float(class_cosine),
        cosine_visible=float(visible_cosine),
        cosine_masked=float(masked_cosine),
        grad_norm=float(total),
        grad_norms={
            name: float(_gradient_norm(part)) for name, part in model.named_children() if list(part.parameters())
        },
        recorded={"device": kept.device, **kept.figures},
    )


def _gradient_norm(module: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def _restore_generators(kept: KeptStep, device: str) -> None:
    torch.set_rng_state(kept.generators["cpu"])
    if device.startswith("cuda") and "cuda" in kept.generators:
        torch.cuda.set_rng_state(kept.generators["cuda"], device)


class _Watch:
    """Looks at tensors in the order in which they come to be, and remembers the first that is not finite."""

    def __init__(self):
        self.first: str | None = None

    def look(self, what: str, tensor: Tensor) -> None:
        if self.first is None and not bool(tensor.isfinite().all()):
            self.first = what

    def inputs(self, model: nn.Module, batch: Batch, latents: Tensor) -> None:
        """Weights, and the targets image by image."""
        for name, tensor in model.state_dict().items():
            self.look(f"weights {name}", tensor)
        for row, target in zip(batch.rows.tolist(), latents, strict=True):
            self.look(f"targets of image {row}", target)

    def listen(self, model: nn.Module) -> None:
        """What every module puts out in the forward pass, and the gradient of every parameter in the backward pass."""
        for name, module in model.named_modules():
            module.register_forward_hook(partial(self._hear, f"output of {name or 'the student'}"))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(partial(self.look, f"gradient of {name}"))

    def _hear(self, what: str, module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        if isinstance(output, Tensor):
            self.look(what, output)
