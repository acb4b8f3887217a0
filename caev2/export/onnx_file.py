"""Graphs for onnxruntime, which needs neither torch nor timm."""

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caev2.errors import ConfigError

OPSET = 18
"""The first whose layer norm and reductions are as torch's exporter writes them; onnxruntime reads it since 1.14."""
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def refuse_missing_packages() -> None:
    """Refuse before time is spent.

    Raises:
        ConfigError: A package is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f'The format onnx needs {" and ".join(missing)}. Run: pip install "caev2[onnx]"')


def write_onnx(model: nn.Module, path: Path, *, image_px: int, output: str, facts: Mapping[str, str]) -> None:
    """Write a graph from `images`, any number of them, to one output.

    Args:
        model: Takes images, normalised; in evaluation mode.
        path: A file.
        image_px: Side of the images.
        output: What its output is called.
        facts: What the file says of itself.
    """
    images = torch.zeros(2, 3, image_px, image_px)  # two, for a batch of one would be taken for a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own future
        program: Any = torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)


def open_onnx(path: Path, output: str) -> Callable[[Tensor], Tensor]:
    """What onnxruntime computes with a file, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([output], {"images": images.numpy()})[0])
