"""What can be exported: a run, a fine-tuning, a published file, an export."""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.checks import check_weights
from caev2.eval.entrants import RunEntry, sha256_of_file
from caev2.eval.subjects import load_student
from caev2.export.timm_model import TimmModel, classifier_as_timm, encoder_as_timm
from caev2.pretrain.adopt import read_report, sha256_of_weights
from caev2.pretrain.checkpoint import latest_checkpoint, read_named_weights
from caev2.pretrain.foreign import read_weights, unwrap
from caev2.pretrain.identity import FILE_NAME
from caev2.pretrain.model import CAEv2
from caev2.pretrain.official import about_file, import_official, settings_of, to_official
from caev2.pretrain.official_sizes import infer_settings
from caev2.pretrain.sizes import ModelSettings
from caev2.pretrain.untrusted import read_untrusted

TUNED = "finetune.json"
"""What makes a folder that of a fine-tuning."""

Images = Float[Tensor, "image 3 height width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """Weights that can be written in any format."""

    settings: ModelSettings
    timm: TimmModel
    """As a model of stock timm."""
    published: dict[str, Tensor]
    """All that was trained, under the published names."""
    reference: Callable[[Images], Tensor]
    """What the original computes: tokens after the final norm; of a classifier, its logits."""
    provenance: dict[str, Any]
    """Where the weights come from; no path, host or time."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How they were trained, where that is known."""
    views: Mapping[str, Any] = field(default_factory=dict)
    """How the crops were drawn, where that is known."""
    result: Mapping[str, Any] | None = None
    """The `result.json` of a run, if it is of these weights."""


def open_exportable(
    place: Path,
    *,
    averaged: bool = False,
    heads: int | None = None,
    regressor_heads: int | None = None,
) -> Exportable:
    """The weights at a place.

    Args:
        place: A run's folder, that of a fine-tuning, an official file, or what was exported before.
        averaged: Take the moving average of a run's weights.
        heads: Of the encoder of a file, where neither file nor width tells them.
        regressor_heads: Of its regressor.

    Raises:
        CheckpointError: There is nothing, it is damaged, or no CAE v2.
        UnsafeFile: The file would run code.
        ConfigError: An option does not go with what lies there.
    """
    if (place / FILE_NAME).exists():
        if heads or regressor_heads:
            raise ConfigError(f"{place} is a run, which knows its heads. Leave --heads and --regressor-heads away.")
        return _of_run(place, averaged)
    if (place / TUNED).exists():
        return _of_tuned(place, averaged, heads)
    if averaged:
        raise ConfigError(f"{place} is no run, and only a run keeps an average of its weights. Leave --ema away.")
    if not place.exists():
        raise CheckpointError(f"There is nothing at {place}. Give a run's folder, or a file of weights.")
    return _of_file(place, heads, regressor_heads)


def _of_run(run: Path, averaged: bool) -> Exportable:
    entry = RunEntry.find(run)
    identity, facts = entry.identity, dataclasses.asdict(entry.facts())
    student = load_student(identity, entry.checkpoint, "cpu", averaged=averaged)
    imported = read_report(run) if identity.imported else {}
    if imported:
        facts["file_sha256"] = imported.get("sha256")
    return _of_student(
        student,
        untrained=imported.get("missing", ()),
        provenance={"from": "run", **facts, "averaged": averaged},
        recipe=identity.recipe,
        views=identity.views,
        result=None if averaged else _result_of(run, facts["checkpoint_sha256"]),
    )


def _of_tuned(folder: Path, averaged: bool, heads: int | None) -> Exportable:
    """The classifier of a fine-tuning, at its latest checkpoint."""
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{folder} has no checkpoint yet. Let `caev2 finetune` reach its first one.")
    named = to_official(read_named_weights(checkpoint.path, averaged=averaged))
    check_weights(named.items(), str(checkpoint.path))
    tensors = {name.removeprefix("encoder."): tensor for name, tensor in named.items()}
    tables = [tensor for name, tensor in tensors.items() if name.endswith("relative_position_bias_table")]
    with about_file(checkpoint.path):
        heads = heads or (tables[0].shape[1] if tables else None)
        settings = infer_settings({f"encoder.{name}": tensor for name, tensor in tensors.items()}, heads=heads)
        provenance = {
            "from": "fine-tuning",
            "step": checkpoint.step,
            "checkpoint_sha256": sha256_of_file(checkpoint.path),
            "averaged": averaged,
        }
        exportable = _of_classifier(settings, tensors, provenance)
    result = None if averaged else _result_of_tuned(folder, checkpoint.step)
    return dataclasses.replace(exportable, result=result)


def _result_of_tuned(folder: Path, step: int) -> Mapping[str, Any] | None:
    """The numbers of a fine-tuning, if they are of its latest checkpoint."""
    try:
        result = json.loads((folder / "result.json").read_bytes())
        return result if result["subjects"][0]["protocol"]["finetune"]["steps"] == step else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _of_file(file: Path, heads: int | None, regressor_heads: int | None) -> Exportable:
    with about_file(file):
        weights = read_weights(file)
        provenance = {"from": "file", "file_sha256": sha256_of_weights(file), "layout": weights.layout}
        if weights.layout == "fine-tuned":
            tensors = unwrap(read_untrusted(file))
            check_weights(tensors.items(), str(file))
            settings = settings_of(weights, heads=heads)
            return _of_classifier(settings, tensors, provenance)
    student, report = import_official(file, heads=heads, regressor_heads=regressor_heads)
    check_weights(student.state_dict().items(), str(file))
    return _of_student(student.eval(), untrained=report.missing, provenance=provenance)


def _of_student(student: CAEv2, *, untrained: Collection[str], provenance: dict[str, Any], **known: Any) -> Exportable:
    state = {name: tensor.detach() for name, tensor in student.state_dict().items()}
    encoder = {name.removeprefix("encoder."): one for name, one in state.items() if name.startswith("encoder.")}
    trained = {name: tensor for name, tensor in state.items() if name not in set(untrained)}
    return Exportable(
        settings=student.settings,
        timm=encoder_as_timm(student.settings, encoder),
        published=to_official(trained),
        reference=student.encoder,
        provenance=provenance,
        **known,
    )


def _of_classifier(settings: ModelSettings, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> Exportable:
    model = classifier_as_timm(settings, tensors)
    built: nn.Module = model.build()
    return Exportable(settings=settings, timm=model, published=tensors, reference=built.forward, provenance=provenance)


def _result_of(run: Path, checkpoint_sha256: str) -> Mapping[str, Any] | None:
    """The numbers of a run, if they are of this very checkpoint."""
    try:
        result = json.loads((run / "result.json").read_bytes())
        return result if result["run"]["checkpoint_sha256"] == checkpoint_sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
