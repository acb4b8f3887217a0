"""A step that was not finite, in one file: all that it takes to compute it again, anywhere.

The file holds the weights before the step (`model/<name>`), the batch (`batch/<name>`), its targets decoded
(`latents`) and the states of torch's generators (`generator/<device>`). The optimiser's moments are not in it: loss
and gradients do not depend on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caev2.errors import CheckpointDamaged, CheckpointError
from caev2.pretrain.identity import model_settings
from caev2.pretrain.learning.objective import LossSettings
from caev2.pretrain.learning.step import Objective
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.weights.tensor_file import DAMAGED, OtherKind, read_tensors, write_tensors
from caev2.recipe import merge, to_mapping

FORMAT = "caev2 step 1"
_ORIGIN = "A run that stops because losses are not finite writes one, diverged-step-<number>.safetensors."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """What entered a step, and what came of it."""

    model: ModelSettings
    """Sizes of the student."""
    loss: LossSettings
    """What it was trained towards."""
    form: dict[str, Tensor]
    """Statistics that targets are whitened with; empty where they are not."""
    weights: dict[str, Tensor]
    """Of the student, before the step."""
    batch: Batch
    latents: Float[Tensor, "image token width"]
    """The batch's targets, decoded."""
    generators: dict[str, Tensor]
    """State of torch's generator on each device. No step draws from them; that is a claim one can check with these."""
    precision: str
    """`fp32` or `bf16`."""
    device: str
    """Where the step was computed."""
    accumulate: int
    """In how many parts, one after another."""
    figures: dict[str, float]
    """Loss, cosines and gradient norm as they were, not finite as they may be."""


def keep_step(
    path: Path,
    objective: Objective,
    batch: Batch,
    latents: Float[Tensor, "image token width"],
    *,
    device: str,
    figures: dict[str, float],
    accumulate: int = 1,
) -> None:
    """Write a step to a file.

    Args:
        path: The file.
        objective: Student and loss.
        batch: All of it, on its device.
        latents: Its targets, decoded.
        device: Where the step was computed.
        figures: What came of it.
        accumulate: In how many parts the batch went through the student.

    Raises:
        OutputError: It cannot be written.
    """
    model = objective.student
    facts = {
        "format": FORMAT,
        "model": to_mapping(model.settings),
        "loss": to_mapping(objective.loss),
        "precision": objective.precision,
        "device": device,
        "accumulate": accumulate,
        "figures": {name: str(value) for name, value in figures.items()},  # JSON has no word for what is not finite
        "batch": {name: getattr(batch, name) for name in ("step", "epoch", "view", "drifted")},
    }
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"batch/{name}": tensor for name, tensor in batch.tensors().items()}
    tensors |= {f"form/{name}": table for name, table in objective.form.named_buffers()}
    tensors |= {f"generator/{name}": tensor for name, tensor in _generators(device).items()}
    write_tensors(path, tensors | {"latents": latents}, facts)


def read_step(path: Path) -> KeptStep:
    """Read a step from a file, verified; nothing in the file is ever run.

    Raises:
        CheckpointError: There is none, or it is damaged or something else.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. {_ORIGIN}")
    try:
        return _parse(*read_tensors(path, FORMAT))
    except OtherKind as problem:
        raise CheckpointError(f"{path} is no kept step ({problem}). {_ORIGIN}") from None
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror or problem}. Check the disk.") from None
    except DAMAGED as problem:
        raise CheckpointDamaged(f"{path} is damaged or no kept step ({problem}). Bring it back from a copy.") from None


def _parse(tensors: dict[str, Tensor], facts: dict[str, Any]) -> KeptStep:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "batch": {}, "form": {}, "generator": {}, "latents": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    return KeptStep(
        model=model_settings(facts["model"]),
        loss=merge(LossSettings(), facts.get("loss", {}), where="a kept step"),
        form=parts["form"],
        weights=parts["model"],
        batch=Batch(**{"keep": None, "targets": None, **facts["batch"], **parts["batch"]}),
        latents=parts["latents"][""],
        generators=parts["generator"],
        precision=facts["precision"],
        device=facts["device"],
        accumulate=facts.get("accumulate", 1),
        figures={name: float(value) for name, value in facts["figures"].items()},
    )


def _generators(device: str) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.startswith("cuda") else {})
