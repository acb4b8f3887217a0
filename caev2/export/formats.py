"""The formats that weights are written in, and what reads each of them without caev2.

A format is a pair: how to write, and how to load what was written with the library that others would use. Every export
goes through both before it is kept.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from caev2.errors import ConfigError
from caev2.export.exportable import Exportable, Images
from caev2.export.model_card import model_card
from caev2.export.onnx_file import open_onnx, write_onnx
from caev2.export.timm_model import classifier_as_timm
from caev2.pretrain.weights.foreign import EXPORTED, FACTS
from caev2.pretrain.weights.official import import_official
from caev2.pretrain.weights.official_sizes import published_heads
from caev2.recipe import to_mapping

FormatName = Literal["timm", "safetensors", "huggingface", "onnx"]

VERSION = "caev2 weights 1"
"""What an exported file says of itself."""
_PICKLED = (".pth", ".pt", ".bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How weights are written, and read again."""

    suffixes: tuple[str, ...]
    """What its files end in; none: it is a folder."""
    write: Callable[[Exportable, Path], None]
    load: Callable[[Exportable, Path], Callable[[Images], Tensor]]
    """What computes the output from what was written, by the library of others."""
    how_to_load: Callable[[Exportable, Path], str]
    """A line of Python for others."""


def _write_timm(exportable: Exportable, path: Path) -> None:
    if path.suffix in _PICKLED:
        torch.save(_alone(exportable.timm.tensors), path)
    else:
        _write_tensors(exportable, exportable.timm.tensors, path)


def _load_timm(exportable: Exportable, path: Path) -> Callable[[Images], Tensor]:
    model = timm.create_model(exportable.timm.architecture, checkpoint_path=str(path), **exportable.timm.arguments)
    return output_of(exportable, model.eval())


def _say_timm(exportable: Exportable, path: Path) -> str:
    said = [repr(exportable.timm.architecture), f"checkpoint_path={str(path)!r}"]
    said += [f"{name}={value!r}" for name, value in exportable.timm.arguments.items()]
    overlay = {name: tuple(value) if isinstance(value, list) else value for name, value in _overlay(exportable).items()}
    return f"timm.create_model({', '.join([*said, f'pretrained_cfg_overlay={overlay!r}'])})"


def _overlay(exportable: Exportable) -> dict[str, Any]:
    """What `timm.data.resolve_data_config` has to know: timm's own weights of the same name want other pixels."""
    return exportable.timm.data_config


def _write_safetensors(exportable: Exportable, path: Path) -> None:
    _write_tensors(exportable, exportable.published, path)


def _load_safetensors(exportable: Exportable, path: Path) -> Callable[[Images], Tensor]:
    if exportable.timm.output == "logits":
        again = classifier_as_timm(exportable.settings, safetensors.torch.load_file(path))
        return output_of(exportable, again.build())
    student, _ = import_official(path)
    return student.eval().encoder.forward


def _write_huggingface(exportable: Exportable, path: Path) -> None:
    save_for_hf(exportable.timm.build(), str(path), model_args=dict(exportable.timm.arguments), safe_serialization=True)
    _write_tensors(exportable, exportable.timm.tensors, path / EXPORTED)  # the same, with what it says of itself
    (path / "README.md").write_text(model_card(exportable), encoding="utf-8")


def _load_huggingface(exportable: Exportable, path: Path) -> Callable[[Images], Tensor]:
    return output_of(exportable, timm.create_model(f"local-dir:{path}", pretrained=True).eval())


def _write_onnx(exportable: Exportable, path: Path) -> None:
    model = exportable.timm
    write_onnx(
        _Output(model.build(exportable=True), model.output),
        path,
        image_px=model.image_px,
        output=model.output,
        facts={FACTS: _facts(exportable), **{name: json.dumps(value) for name, value in model.data_config.items()}},
    )


def _write_tensors(exportable: Exportable, tensors: Mapping[str, Tensor], path: Path) -> None:
    """A safetensors file that says what it is; `format` is what the library transformers asks for."""
    safetensors.torch.save_file(_alone(tensors), path, {"format": "pt", FACTS: _facts(exportable)})


def _alone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in memory of their own, as files keep them."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _facts(exportable: Exportable) -> str:
    model = exportable.timm
    return json.dumps(
        {
            "format": VERSION,
            "model": to_mapping(exportable.settings),
            "timm": {"architecture": model.architecture, "arguments": model.arguments},
            "data": model.data_config,
            "provenance": exportable.provenance,
        },
        sort_keys=True,
    )


class _Output(nn.Module):
    """A timm model whose forward gives what is compared: all tokens, or logits."""

    def __init__(self, model: Any, output: str):
        super().__init__()
        self.model, self.output = model, output

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) if self.output == "logits" else self.model.forward_features(images)


def output_of(exportable: Exportable, model: nn.Module) -> Callable[[Images], Tensor]:
    """What a timm model computes of images."""
    return _Output(model, exportable.timm.output).forward


FORMATS: dict[str, Format] = {
    "timm": Format(suffixes=(".safetensors", *_PICKLED), write=_write_timm, load=_load_timm, how_to_load=_say_timm),
    "safetensors": Format(
        suffixes=(".safetensors",),
        write=_write_safetensors,
        load=_load_safetensors,
        how_to_load=lambda _, path: f"safetensors.torch.load_file({str(path)!r})",
    ),
    "huggingface": Format(
        suffixes=(),
        write=_write_huggingface,
        load=_load_huggingface,
        how_to_load=lambda _, path: f"timm.create_model({f'local-dir:{path}'!r}, pretrained=True)",
    ),
    "onnx": Format(
        suffixes=(".onnx",),
        write=_write_onnx,
        load=lambda exportable, path: open_onnx(path, exportable.timm.output),
        how_to_load=lambda _, path: f"onnxruntime.InferenceSession({str(path)!r})",
    ),
}
"""By name: a stock timm model in a file; all that was trained, under the published names; a folder for the hub of
Hugging Face; a graph for onnxruntime."""


def refuse_lost_heads(exportable: Exportable, out: Path) -> None:
    """Refuse a pickled state dict of a model whose heads nobody could tell again: it records nothing beside tensors.

    Raises:
        ConfigError: It is one.
    """
    size = exportable.settings
    if out.suffix in _PICKLED and published_heads(size.width) != size.heads:
        implied = published_heads(size.width) or "no number"
        raise ConfigError(
            f"--out {out} would lose that the model has {size.heads} heads: a {out.suffix} file records no sizes, and "
            f"its width of {size.width} would stand for {implied}. Give a file that ends in .safetensors."
        )


def refuse_name(kind: str, out: Path) -> None:
    """Refuse a file whose name does not fit the format.

    Raises:
        ConfigError: It does not.
    """
    suffixes = FORMATS[kind].suffixes
    if suffixes and out.suffix not in suffixes:
        raise ConfigError(
            f"--out {out} cannot hold the format {kind}. Give a file that ends in {' or '.join(suffixes)}."
        )
