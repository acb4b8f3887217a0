"""One training step: forward, loss, backward, clip, update."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from caev2.pretrain.batches import Batch
from caev2.pretrain.loss import Alignment, alignment_loss, order_targets
from caev2.pretrain.parameters import set_learning_rate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the student's images, as published; the teacher's own values are part of the teacher."""


class StepFigures(NamedTuple):
    """What is known of a step after it; tensors stay on the device until somebody reads them."""

    alignment: Alignment
    grad_norm: Float[Tensor, ""]
    """Of all gradients together, before clipping."""
    applied: bool
    """False: loss or gradients were not finite, and the weights are as before."""


def normalise_images(crops: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image 3 size size"]:
    """Pixels 0-255 to the student's input."""
    mean = torch.tensor(IMAGENET_MEAN, device=crops.device).mul(255)
    std = torch.tensor(IMAGENET_STD, device=crops.device).mul(255)
    return crops.float().sub(mean).div(std).permute(0, 3, 1, 2).contiguous()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    decoder: nn.Module,
    *,
    lr: float,
    clip_norm: float | None,
    precision: str = "fp32",
) -> StepFigures:
    """Train on one batch.

    Args:
        model: The student, or a wrapper that computes the same.
        optimizer: Over its parameters.
        batch: On the model's device.
        decoder: Makes latents of the batch's targets (`TargetDecoder`).
        lr: Learning rate of this step.
        clip_norm: Largest norm of the gradients; none: not clipped.
        precision: `bf16` runs the forward pass under autocast.
    """
    images = normalise_images(batch.crops)
    latents = decoder(batch.targets)
    return update(model, optimizer, batch, images, latents, lr=lr, clip_norm=clip_norm, precision=precision)


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    images: Float[Tensor, "image 3 size size"],
    latents: Float[Tensor, "image token width"],
    *,
    lr: float,
    clip_norm: float | None,
    precision: str = "fp32",
) -> StepFigures:
    """A step on images that are normalised and targets that are decoded already; see `train_step`."""
    alignment = align(model, batch, images, latents, precision)
    optimizer.zero_grad(set_to_none=True)
    alignment.loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    limit = float("inf") if clip_norm is None else clip_norm
    grad_norm = nn.utils.clip_grad_norm_(parameters, limit)
    applied = bool(torch.isfinite(grad_norm) & torch.isfinite(alignment.loss))
    if applied:
        set_learning_rate(optimizer, lr)
        optimizer.step()
    return StepFigures(alignment._replace(loss=alignment.loss.detach()), grad_norm, applied)


def align(
    model: nn.Module,
    batch: Batch,
    images: Float[Tensor, "image 3 size size"],
    latents: Float[Tensor, "image token width"],
    precision: str,
) -> Alignment:
    """The loss of a batch."""
    autocast = torch.autocast(images.device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with autocast:
        predicted = model(images, batch.visible, batch.masked, batch.keep)
    target = order_targets(latents, batch.visible, batch.masked)
    return alignment_loss(predicted, target, batch.visible.shape[1])


@contextlib.contextmanager
def tensor_cores(device: str) -> Iterator[None]:
    """On a GPU, let matrix products that stay in float32 be computed in TF32; convolutions are by torch's default.

    torch has a newer name for each of its libraries, but only since 2.9, and whoever asks for the general precision
    after it was used gets an error.
    """
    before = torch.get_float32_matmul_precision()
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
