"""Write weights in a format of others, and keep the file only if it computes what the original computes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caev2.errors import CheckpointError, OutputError
from caev2.export.exportable import Exportable, Images
from caev2.export.formats import FORMATS, FormatName, refuse_lost_heads, refuse_name
from caev2.export.onnx_file import refuse_missing_packages
from caev2.export.subject import open_exportable
from caev2.store.disk import Scratch, flush_file, replace_file, writing

TOLERANCE = 1e-5
"""How far outputs may be from the original's, over the larger of 1 and the largest of them: rounding in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written."""

    out: Path
    format: FormatName
    tensors: int
    bytes: int
    architecture: str
    """The stock timm model that computes it."""
    arguments: dict[str, Any]
    """Of `timm.create_model`, beside the name."""
    output: str
    """What was compared: tokens after the final norm, or logits."""
    difference: float
    """The largest from the original, over the larger of 1 and the largest output."""
    load: str
    """A line of Python that reads it, where caev2 need not be."""


def export(
    subject: Path,
    out: Path,
    kind: FormatName,
    *,
    averaged: bool = False,
    heads: int | None = None,
    regressor_heads: int | None = None,
) -> ExportResult:
    """Write the weights of a run, an official file or an export to a new file or folder.

    What was written is read again by the library that others would read it with, and compared.

    Args:
        subject: Whose weights.
        out: A file, or for `huggingface` a folder; there must be none yet.
        kind: The format.
        averaged: Take the moving average of a run's weights.
        heads: Of the encoder of a file, where neither file nor width tells them.
        regressor_heads: Of its regressor.

    Raises:
        CheckpointError: The weights cannot be read, or what was written computes something else.
        UnsafeFile: The file would run code.
        ConfigError: `out` does not fit the format or would lose the heads, or a package is missing.
        OutputError: Something lies at `out`, or it cannot be written.
    """
    refuse_name(kind, out)
    if kind == "onnx":
        refuse_missing_packages()
    if out.exists():
        raise OutputError(f"{out} is there already. Give another path, or remove it.")
    exportable = open_exportable(subject, averaged=averaged, heads=heads, regressor_heads=regressor_heads)
    refuse_lost_heads(exportable, out)
    with writing(out):
        difference = _write_checked(exportable, out, kind)
    return ExportResult(
        out=out,
        format=kind,
        tensors=len(exportable.published if kind == "safetensors" else exportable.timm.tensors),
        bytes=sum(path.stat().st_size for path in _files(out)),
        architecture=exportable.timm.architecture,
        arguments=exportable.timm.arguments,
        output=exportable.timm.output,
        difference=difference,
        load=FORMATS[kind].how_to_load(exportable, out),
    )


def _write_checked(exportable: Exportable, out: Path, kind: FormatName) -> float:
    """Write elsewhere on the same disk, compare, and move to its place: a crash leaves all of it or none."""
    scratch = Scratch(out.parent / f".{out.name}.exporting")
    try:
        made = scratch.folder / "made" / out.name
        made.parent.mkdir()
        if not FORMATS[kind].suffixes:
            made.mkdir()
        FORMATS[kind].write(exportable, made)
        difference = compare(exportable, FORMATS[kind].load(exportable, made))
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"What was written as {kind} computes other {exportable.timm.output} than the original: they differ by "
                f"{difference:.2e}, more than {TOLERANCE:.0e}, so {out} was not made. Another version of timm or "
                "onnxruntime may compute something else; those of constraints.txt were tested."
            )
        for path in _files(made):
            with path.open("rb") as file:
                flush_file(file.fileno())
        replace_file(made, out)
    finally:
        scratch.close()
    return difference


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]


def compare(exportable: Exportable, computed: Callable[[Images], Tensor]) -> float:
    """The largest difference of outputs from the original's, over the larger of 1 and the largest of them."""
    images = some_images(exportable.timm.image_px)
    with torch.inference_mode():
        wanted, found = exportable.reference(images), computed(images)
    return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1))


def some_images(image_px: int) -> Float[Tensor, "image 3 size size"]:
    """Two images of noise, as if they were normalised; the same every time."""
    return torch.randn(2, 3, image_px, image_px, generator=torch.Generator().manual_seed(0))
