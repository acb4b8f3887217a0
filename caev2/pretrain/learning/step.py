"""One training step: forward, loss, backward, clip, update. Nothing in it waits for the device."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from caev2.pretrain.learning.loss import Alignment, alignment_loss, order_targets
from caev2.pretrain.learning.objective import PUBLISHED, LossSettings
from caev2.pretrain.learning.target_norm import TargetForm
from caev2.pretrain.student.parameters import set_learning_rate
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.together.ranks import ALONE, Company

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the student's images, as published; the teacher's own values are part of the teacher."""
MAX_SKIPPED = 3
"""Steps in a row without a finite loss and gradient after which a run stops."""


class StepFigures(NamedTuple):
    """What is known of a step after it; tensors stay on the device until somebody reads them."""

    loss: Float[Tensor, ""]
    class_cosine: Float[Tensor, ""]
    visible_cosine: Float[Tensor, ""]
    masked_cosine: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    """Of all gradients together, before clipping."""
    skipped: Float[Tensor, ""]
    """How many steps up to this one, without a gap, left the weights as they were; 0: this one was applied."""


def normalise_images(crops: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image 3 size size"]:
    """Pixels 0-255 to the student's input."""
    return normalise_by(crops, *image_statistics(crops.device))


@functools.cache
def image_statistics(device: torch.device) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Mean and deviation of pixels 0-255, brought to a device once.

    Whoever copies to a GPU from ordinary memory waits for all that it was given before.
    """
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).mul(255) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def normalise_by(
    crops: UInt8[Tensor, "image size size 3"], mean: Float[Tensor, "3"], std: Float[Tensor, "3"]
) -> Float[Tensor, "image 3 size size"]:
    """Channels first, less a mean and over a deviation: what of `normalise_images` can be compiled."""
    return crops.float().sub(mean).div(std).permute(0, 3, 1, 2).contiguous()


@runtime_checkable
class Inputs(Protocol):
    """Whoever makes of a batch what the student sees, and what it is to predict."""

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, "image 3 size size"], Float[Tensor, "image token width"]]:
        """Normalised images, and latents: class token first, then all patches in row-major order."""
        ...

    def compile(self) -> None:
        """Let torch compile what can be."""
        ...


class StoredInputs:
    """What a batch of a store shows the student, and what it is to predict.

    Args:
        decoder: Makes latents of the batch's targets (`TargetDecoder`).
    """

    def __init__(self, decoder: nn.Module):
        self.decoder = decoder
        self._compute: Callable[..., tuple[Tensor, Tensor]] = self._decode

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, "image 3 size size"], Float[Tensor, "image token width"]]:
        """Normalised images, and latents."""
        assert batch.targets is not None, "batches of a store have them"
        return self._compute(batch.crops, batch.targets, *image_statistics(batch.crops.device))

    def compile(self) -> None:
        """Let torch make one pass of each."""
        self._compute = torch.compile(self._decode, dynamic=False)

    def _decode(self, crops: Tensor, targets: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        return normalise_by(crops, mean, std), self.decoder(targets)


class Objective(nn.Module):
    """The student and what it is trained towards, as one function of tensors.

    Args:
        student: The model.
        loss: Which tokens count, by which distance.
        form: What is done to targets first; none: as `loss` says, which is nothing where the cosine is taken.
        precision: `bf16` runs the student under autocast; targets and loss stay in float32.
    """

    def __init__(
        self, student: nn.Module, loss: LossSettings = PUBLISHED, form: nn.Module | None = None, precision: str = "fp32"
    ):
        super().__init__()
        self.student, self.loss, self.precision = student, loss, precision
        only_direction = loss.distance == "cosine" and loss.target_norm == "l2"
        self.form = nn.Identity() if only_direction else form or TargetForm(loss.target_norm)

    def forward(
        self,
        images: Float[Tensor, "image 3 size size"],
        latents: Float[Tensor, "image token width"],
        visible: Int[Tensor, "image visible"],
        masked: Int[Tensor, "image masked"],
        keep: Bool[Tensor, "branch image"] | None = None,
    ) -> Alignment:
        """The loss of a batch."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            predicted = self.student(images, visible, masked, keep)
        predicts_masked = predicted.shape[1] > 1 + visible.shape[1]
        target = order_targets(self.form(latents), visible, masked if predicts_masked else masked[:, :0])
        return alignment_loss(predicted, target, visible.shape[1], self.loss)


class TrainStep:
    """Trains a student, a batch at a time.

    Weights change only by finite steps, and after `MAX_SKIPPED` others in a row not at all any more: whoever reads the
    figures late finds the weights as the first of them left them.

    Args:
        objective: Student and loss; of several ranks, each has a copy.
        optimizer: Over the student's parameters, and fused: it can be told on the device to do nothing.
        inputs: Images and latents of a batch (`StoredInputs`).
        clip_norm: Largest norm of the gradients; none: not clipped.
        accumulate: In how many parts a batch goes through the student, one after another.
        compiled: Let torch compile inputs and objective.
        company: The ranks that share the batch.
        skipped: Steps right before the first one that were not applied.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        inputs: Inputs,
        *,
        clip_norm: float | None,
        accumulate: int = 1,
        compiled: bool = False,
        company: Company | None = None,
        skipped: int = 0,
    ):
        self._company = company or Company(ALONE)
        self._inputs, self._objective = inputs, objective
        if compiled:
            inputs.compile()
            objective.compile(dynamic=False)
        if self._company.ranks.count > 1:
            self._objective = DistributedDataParallel(
                objective, gradient_as_bucket_view=True, find_unused_parameters=False, **unchanging_buffers()
            )
        self._optimizer, self._clip_norm, self._accumulate = optimizer, clip_norm, accumulate
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._skipped = torch.tensor(float(skipped), device=self._parameters[0].device)

    def __call__(self, batch: Batch, lr: float) -> StepFigures:
        """Train on one batch, which is on the student's device, with a learning rate."""
        self._optimizer.zero_grad(set_to_none=True)
        alignment = self._company.average(self._gradients(batch))
        grad_norm = self._clip()
        self._count(torch.isfinite(grad_norm) & torch.isfinite(alignment[0]))
        set_learning_rate(self._optimizer, lr)
        self._optimizer.step()
        return StepFigures(*alignment.unbind(), grad_norm, self._skipped)  # type: ignore[call-arg]

    def _gradients(self, batch: Batch) -> Float[Tensor, "4"]:
        """Let every parameter have its gradient, averaged over parts and ranks; this rank's loss and cosines."""
        parts = [batch] if self._accumulate == 1 else batch.split(self._accumulate)
        figures = []
        for number, part in enumerate(parts, start=1):
            with self._apart(number < len(parts)):
                alignment = self._objective(*self._inputs(part), part.visible, part.masked, part.keep)
                (alignment.loss / len(parts) if len(parts) > 1 else alignment.loss).backward()
            figures.append(torch.stack([alignment.loss.detach(), *alignment[1:]]))
        return figures[0] if len(figures) == 1 else torch.stack(figures).mean(0)

    def _apart(self, wanted: bool) -> contextlib.AbstractContextManager:
        """Add up gradients here, and leave the other ranks to themselves."""
        if wanted and isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return contextlib.nullcontext()

    def _clip(self) -> Float[Tensor, ""]:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        return norm

    def _count(self, finite: Bool[Tensor, ""]) -> None:
        """Tell the optimiser, as gradient scalers do, whether it may change anything."""
        stuck = self._skipped >= MAX_SKIPPED
        further = torch.where(finite, torch.zeros_like(self._skipped), self._skipped + 1)
        self._skipped = torch.where(stuck, self._skipped, further)
        self._optimizer.found_inf = (self._skipped > 0).float()  # type: ignore[attr-defined]


def unchanging_buffers() -> dict[str, Any]:
    """An option of `DistributedDataParallel`, which torch has renamed: no buffer changes, so none is told to others."""
    known = inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


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
