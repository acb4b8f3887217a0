"""What can be exported: a run, a fine-tuning, a published file, an export."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.checks import check_weights
from caev2.eval.entrants import RunEntry
from caev2.eval.finetuning.identity import FILE_NAME as TUNED_FILE_NAME
from caev2.eval.subjects import load_student
from caev2.export.exportable import Exportable, of_classifier
from caev2.export.timm_model import encoder_as_timm
from caev2.export.tuned import of_tuned
from caev2.pretrain.identity import FILE_NAME
from caev2.pretrain.student.model import CAEv2
from caev2.pretrain.weights.adopt import read_report, sha256_of_weights
from caev2.pretrain.weights.foreign import EXPORTED, FACTS, NamedWeights, read_weights, unwrap
from caev2.pretrain.weights.official import about_file, import_official, settings_of, to_official
from caev2.pretrain.weights.untrusted import read_metadata, read_untrusted


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
    if (place / TUNED_FILE_NAME).exists():
        return of_tuned(place, averaged, heads)
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


def _of_file(file: Path, heads: int | None, regressor_heads: int | None) -> Exportable:
    with about_file(file):
        weights = read_weights(file)
        provenance = {"from": "file", "file_sha256": sha256_of_weights(file), "layout": weights.layout}
        if _is_classifier(weights):
            inner = file / EXPORTED if file.is_dir() else file
            tensors = _bare_names(unwrap(read_untrusted(inner)))
            check_weights(tensors.items(), str(file))
            settings = settings_of(weights, heads=heads)
            return of_classifier(settings, tensors, provenance, resize_px=_recorded_resize(inner, settings.image_px))
    student, report = import_official(file, heads=heads, regressor_heads=regressor_heads)
    check_weights(student.state_dict().items(), str(file))
    return _of_student(student.eval(), untrained=report.missing, provenance=provenance)


def _is_classifier(weights: NamedWeights) -> bool:
    return weights.layout == "fine-tuned" or (weights.layout == "timm" and "head.weight" in weights.ignored)


def _bare_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors, published or timm's, under the published names; of a bias of keys there is none."""
    named = to_official({f"encoder.{name}": tensor for name, tensor in tensors.items()})
    return {name.removeprefix("encoder."): tensor for name, tensor in named.items()}


def _recorded_resize(file: Path, image_px: int) -> int | None:
    """Short side of the images that an exported file says it was judged on."""
    try:
        return int(image_px / json.loads(read_metadata(file).get(FACTS, ""))["data"]["crop_pct"])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return None


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


def _result_of(run: Path, checkpoint_sha256: str) -> Mapping[str, Any] | None:
    """The numbers of a run, if they are of this very checkpoint."""
    try:
        result = json.loads((run / "result.json").read_bytes())
        return result if result["run"]["checkpoint_sha256"] == checkpoint_sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
