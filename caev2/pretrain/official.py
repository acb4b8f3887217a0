"""Weights in the published names: from an official CAE v2 checkpoint to a student, and back.

Public files hold the encoder alone; a full pre-training checkpoint holds the regressor and the head as well.
What is missing starts fresh, and every key of the file ends up in the report.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caev2.errors import CheckpointError
from caev2.pretrain.model import CAEv2, build
from caev2.pretrain.positions import position_table
from caev2.pretrain.sizes import SIZES, ModelSettings
from caev2.pretrain.untrusted import read_untrusted

_BLOCK = r"^regressor\.blocks\.(\d+)\."
_OFFICIAL_BLOCK = r"regresser.regressor_blocks.\1."  # both spellings are as published
_OFFICIAL_NAMES = (
    (r"^encoder\.blocks\.(\d+)\.ls([12])\.gamma$", r"encoder.blocks.\1.gamma_\2"),
    (_BLOCK + r"ls([12])\.gamma$", _OFFICIAL_BLOCK + r"gamma_\2_cross"),
    (_BLOCK + r"norm_([qkv])\.", _OFFICIAL_BLOCK + r"norm1_\2."),
    (_BLOCK + r"norm2\.", _OFFICIAL_BLOCK + "norm2_cross."),
    (_BLOCK + r"attn\.([qv])\.bias$", _OFFICIAL_BLOCK + r"cross_attn.\2_bias"),
    (_BLOCK + r"attn\.", _OFFICIAL_BLOCK + "cross_attn."),
    (_BLOCK + r"mlp\.", _OFFICIAL_BLOCK + "mlp_cross."),
    (r"^regressor\.mask_token$", "mask_token"),
    (r"^projection\.linear\.", "encoder_to_regresser."),
    (r"^projection\.norm\.", "encoder_to_regresser_norm."),
    (r"^head\.norm\.", "decoder.norm."),
    (r"^head\.linear\.", "decoder.head."),
)
_IGNORED = (
    (r"(alignment_encoder|teacher)\.", "the copy of the encoder that CAE v1 aligned with"),
    (r"regresser\.norm\.", "no token passes this norm in CAE v2"),
    (r"rd_pos_embed$", "fixed; equal to the positions that caev2 computes"),
    (r"(decoder|pretext_neck|encoder_to_decoder)", "the decoder of CAE v1"),
)
_POSITION_TOLERANCE = 1e-4
"""Published tables were computed in float32: at width 1024 that is off by some 1e-6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of every key."""

    used: tuple[str, ...]
    """Keys of the file whose numbers are now in the student."""
    ignored: dict[str, str]
    """Keys of the file that are not, and why."""
    missing: tuple[str, ...]
    """The student's own tensors that the file does not hold: they start fresh."""


def official_name(name: str) -> str:
    """The published name of one of the student's tensors; `qkv.bias` is published in two parts."""
    for pattern, replacement in _OFFICIAL_NAMES:
        name, found = re.subn(pattern, replacement, name)
        if found:
            return name
    return name


def to_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights, or gradients, under their published names."""
    official = {}
    for name, tensor in tensors.items():
        if name.endswith("qkv.bias"):
            query, _, value = tensor.chunk(3)
            official |= {_half(name, "q"): query, _half(name, "v"): value}
        else:
            official[official_name(name)] = tensor
    return official


def _half(name: str, letter: str) -> str:
    return name.removesuffix("qkv.bias") + letter + "_bias"


def import_official(
    path: Path, *, seed: int = 0, heads: int | None = None, regressor_heads: int | None = None
) -> tuple[CAEv2, ImportReport]:
    """A student with the weights of an official checkpoint; what it does not hold starts from the seed.

    Args:
        path: A `.pth` or `.safetensors` file.
        seed: Of the fresh weights.
        heads: Of the encoder, which no shape tells; none: those of the published size of that width.
        regressor_heads: The same for the regressor.

    Raises:
        UnsafeFile: The file would run code.
        CheckpointError: It holds no whole encoder, shapes that do not fit, or other positions.
    """
    with about_file(path):
        state = unwrap(read_untrusted(path))
        settings = infer_settings(state, heads=heads, regressor_heads=regressor_heads)
        tensors, report = from_official(state, settings)
    model = build(settings, seed)
    model.load_state_dict(model.state_dict() | tensors)
    return model, report


@contextlib.contextmanager
def about_file(path: Path) -> Iterator[None]:
    """Let what is wrong with named tensors begin with the file that they came from."""
    try:
        yield
    except CheckpointError as problem:
        raise CheckpointError(str(problem) if str(path) in str(problem) else f"{path}: {problem}") from None


def unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors of a file by name, out of `model`, `module` or `state_dict`, without a leading `module.`.

    Raises:
        CheckpointError: There are no named tensors.
    """
    for wrapper in ("model", "module", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    named = dict(content) if isinstance(content, Mapping) else {}
    state = {str(name).removeprefix("module."): value for name, value in named.items() if isinstance(value, Tensor)}
    if not any(name.startswith("encoder.") for name in state):
        found = ", ".join(list(state)[:3]) or "no tensors"
        raise CheckpointError(
            f"An official CAE v2 checkpoint has keys that begin with 'encoder.', this file has {found}. "
            "Give a pre-training checkpoint or the published encoder."
        )
    return state


def infer_settings(
    state: Mapping[str, Tensor], *, heads: int | None = None, regressor_heads: int | None = None
) -> ModelSettings:
    """The sizes of the student that a state dict fits, read from its shapes.

    Heads leave no trace in shapes: 12, or 16 at width 1024, where 12 heads would not fill it. Without a
    regressor in the file, it is that of the published size of the encoder's width.

    Raises:
        CheckpointError: A tensor that tells a size is missing, or the width is of no published size.
    """
    width, _, patch_px, _ = _shape(state, "encoder.patch_embed.proj.weight", 4)
    tokens = _shape(state, "encoder.pos_embed", 3)[1]
    published = next((size for size in SIZES.values() if size.width == width), None)
    if published is None and (heads is None or "mask_token" not in state):
        raise CheckpointError(
            f"An encoder of width {width} is of no published size ("
            + ", ".join(f"{name} {size.width}" for name, size in SIZES.items())
            + "). A full checkpoint of other sizes can be read when the number of heads is given."
        )
    start = published or SIZES["base"]
    sizes: dict[str, Any] = {
        "image_px": round((tokens - 1) ** 0.5) * patch_px,
        "patch_px": patch_px,
        "width": width,
        "depth": _count_blocks(state, "encoder.blocks."),
        "heads": heads or start.heads,
        "mlp_ratio": _shape(state, "encoder.blocks.0.mlp.fc1.weight", 2)[0] / width,
        "layer_scale": start.layer_scale if "encoder.blocks.0.gamma_1" in state else None,
    }
    if "mask_token" in state:
        sizes["regressor_width"] = _shape(state, "mask_token", 3)[2]
        sizes["regressor_depth"] = _count_blocks(state, "regresser.regressor_blocks.")
        sizes["regressor_heads"] = 12 if sizes["regressor_width"] % 12 == 0 else 16
    if "decoder.head.weight" in state:
        sizes["target_width"] = _shape(state, "decoder.head.weight", 2)[0]
    if regressor_heads is not None:
        sizes["regressor_heads"] = regressor_heads
    return dataclasses.replace(start, **sizes)


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"The key {name} is missing, so the file is cut short or of another model.")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise CheckpointError(f"{name} has shape {shape}, where {dimensions} dimensions are expected.")
    return shape


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {
        int(name.removeprefix(prefix).split(".")[0]) for name in state if re.match(re.escape(prefix) + r"\d", name)
    }
    if numbers != set(range(len(numbers))) or not numbers:
        raise CheckpointError(f"The blocks {prefix}* are {sorted(numbers)}; they must be 0, 1, 2 ... without a gap.")
    return len(numbers)


def from_official(state: Mapping[str, Tensor], settings: ModelSettings) -> tuple[dict[str, Tensor], ImportReport]:
    """The student's tensors out of a published state dict, and what became of every key.

    The encoder must be whole; projection, regressor and head each whole or absent.

    Raises:
        CheckpointError: Something is missing, unknown within a part that is used, of another shape, or the
            positions are not those of the method.
    """
    _check_positions(state, settings)
    with torch.device("meta"):
        expected = CAEv2(settings).state_dict()
    tensors, used = {}, []
    absent = {part for part in ("projection", "regressor", "head") if not _holds_part(state, expected, part)}
    missing = tuple(name for name in expected if name.split(".")[0] in absent)
    for name in (name for name in expected if name not in missing):
        keys = [_half(name, "q"), _half(name, "v")] if name.endswith("qkv.bias") else [official_name(name)]
        tensors[name] = _take(state, keys, name, tuple(expected[name].shape))
        used.extend(keys)
    ignored = {key: _reason_to_ignore(key) for key in state if key not in set(used)}
    return tensors, ImportReport(used=tuple(key for key in state if key in set(used)), ignored=ignored, missing=missing)


def _holds_part(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], part: str) -> bool:
    return any(official_name(name) in state for name in expected if name.startswith(part + "."))


def _take(state: Mapping[str, Tensor], keys: list[str], name: str, shape: tuple[int, ...]) -> Tensor:
    """One of the student's tensors, from one key or from the query's and the value's bias."""
    for key in keys:
        if key not in state:
            raise CheckpointError(f"The key {key} is missing, so the file is cut short or of another model.")
    found = [state[key] for key in keys]
    official_shape = shape if len(keys) == 1 else (shape[0] // 3,)
    for key, tensor in zip(keys, found, strict=True):
        if tuple(tensor.shape) != official_shape:
            raise CheckpointError(
                f"{key} has shape {tuple(tensor.shape)}, but a student of these sizes has {official_shape}. "
                "Give the sizes, and a target as wide, that it was trained with; if they were read from the file "
                "itself, it is damaged or of another model."
            )
    if len(found) == 1:
        return found[0].float()
    query, value = (tensor.float() for tensor in found)
    return torch.cat([query, torch.zeros_like(query), value])


def _reason_to_ignore(key: str) -> str:
    for pattern, reason in _IGNORED:
        if re.match(pattern, key):
            return reason
    if re.match(r"(encoder|regresser|encoder_to_regresser)", key):
        raise CheckpointError(
            f"The student has nothing that {key} could fill, and it may matter: it lies in a part that is "
            "imported. This is not a CAE v2 pre-training checkpoint."
        )
    return "caev2 knows no such key"


def _check_positions(state: Mapping[str, Tensor], settings: ModelSettings):
    for key, width in (("encoder.pos_embed", settings.width), ("rd_pos_embed", settings.regressor_width)):
        if key not in state:
            continue
        table = position_table(settings.grid_size, width)
        if table.shape != state[key].shape:
            raise CheckpointError(
                f"{key} has shape {tuple(state[key].shape)}, but a grid of side {settings.grid_size} at "
                f"width {width} has {tuple(table.shape)}. Only square grids with a class token can be read."
            )
        difference = (state[key].float() - table).abs().max().item()
        if not difference <= _POSITION_TOLERANCE:
            raise CheckpointError(
                f"{key} differs from the positions of CAE v2 by up to {difference:.3g}, not by the "
                f"{_POSITION_TOLERANCE:.0e} of rounding. The method's table has the row in its first half; "
                "MAE's, with the column first, does not fit, nor do learned or resized positions."
            )
