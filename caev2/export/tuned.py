"""The classifier of a fine-tuning, out of its folder."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.checks import check_weights
from caev2.eval.entrants import sha256_of_file
from caev2.eval.finetuning.identity import FILE_NAME, read_claim
from caev2.eval.finetuning.model import FineTuner, tunable_encoder
from caev2.export.exportable import Exportable, of_classifier
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.checkpoint import latest_checkpoint, read_named_weights
from caev2.pretrain.weights.official import about_file, to_official
from caev2.pretrain.weights.official_sizes import infer_settings

_TABLE = "relative_position_bias_table"


def of_tuned(folder: Path, averaged: bool, heads: int | None) -> Exportable:
    """The classifier of a fine-tuning, at its latest checkpoint.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged, or nothing tells the heads.
        ConfigError: Heads were given that the folder records.
    """
    content, recorded = read_claim(folder)
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{folder} has no checkpoint yet. Let `caev2 finetune` reach its first one.")
    if recorded is not None and heads is not None:
        raise ConfigError(f"{folder} records that its student has {recorded.heads} heads. Leave --heads away.")
    state = read_named_weights(checkpoint.path, averaged=averaged)
    tensors = {name.removeprefix("encoder."): tensor for name, tensor in to_official(state).items()}
    check_weights(tensors.items(), str(checkpoint.path))
    provenance = {
        "from": "fine-tuning",
        "fingerprint": content["fingerprint"],
        "start": content.get("start"),
        "step": checkpoint.step,
        "checkpoint_sha256": sha256_of_file(checkpoint.path),
        "averaged": averaged,
    }
    with about_file(checkpoint.path):
        settings = recorded or _infer(tensors, heads)
        exportable = of_classifier(settings, tensors, provenance, resize_px=_resize_px(content))
        reference = _tuner(settings, state)
    return dataclasses.replace(
        exportable,
        reference=reference.forward,
        recipe=content.get("recipe", {}),
        result=None if averaged else _result_of(folder, checkpoint.step),
    )


def _infer(tensors: Mapping[str, Tensor], heads: int | None) -> ModelSettings:
    """The sizes of a student whose folder does not record them.

    Raises:
        CheckpointError: No table of relative positions tells the heads, and they were not given.
    """
    tables = [tensor for name, tensor in tensors.items() if name.endswith(_TABLE)]
    heads = heads or (tables[0].shape[1] if tables else None)
    settings = infer_settings({f"encoder.{name}": tensor for name, tensor in tensors.items()}, heads=heads)
    if heads is None:
        raise CheckpointError(
            f"Nothing tells how many heads the student has: {FILE_NAME} does not record its sizes, and there are no "
            f"biases of relative positions. Published at width {settings.width} are {settings.heads}: "
            f"--heads {settings.heads}."
        )
    return settings


def _tuner(settings: ModelSettings, state: Mapping[str, Tensor]) -> FineTuner:
    """The model that was tuned, by which what is written is judged.

    Raises:
        CheckpointError: Its tensors are not of these sizes.
    """
    backbone = tunable_encoder(
        CAEv2(settings).encoder,
        settings,
        image_px=None,
        drop_path=0.0,
        position_bias=any(name.endswith(_TABLE) for name in state),
    )
    model = FineTuner(backbone, len(state["head.weight"]), head_scale=1.0, seed=0)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as problem:
        raise CheckpointError(
            f"The weights are not those of a student of these sizes: {str(problem).splitlines()[-1].strip()} Give the "
            "heads that it was trained with."
        ) from None
    return model.eval()


def _resize_px(content: Mapping[str, Any]) -> int | None:
    """Short side of the images that it was judged on, as its recipe says."""
    return content.get("recipe", {}).get("resize_px")


def _result_of(folder: Path, step: int) -> Mapping[str, Any] | None:
    """The numbers of a fine-tuning, if they are of its latest checkpoint."""
    try:
        result = json.loads((folder / "result.json").read_bytes())
        return result if result["subjects"][0]["protocol"]["finetune"]["steps"] == step else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
