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

import torch
from torch import Tensor

from caev2.errors import CheckpointError
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.positions import position_table
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.foreign import Layout, NamedWeights, read_weights
from caev2.pretrain.weights.official_sizes import infer_settings

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
_POSITION_TOLERANCES = {torch.float16: 1e-3, torch.bfloat16: 8e-3}
_POSITION_TOLERANCE = 1e-4
"""Published tables were computed in float32: at width 1024 that is off by some 1e-6. In half precision, by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of every key."""

    used: dict[str, str]
    """Keys of the file whose numbers are now in the student, and the tensors that they fill."""
    ignored: dict[str, str]
    """Keys of the file that are not, and why."""
    missing: tuple[str, ...]
    """The student's own tensors that the file does not hold: they start fresh."""
    layout: Layout = "pre-training"
    """How the file names its tensors."""
    beside: tuple[str, ...] = ()
    """What lies beside the weights in the file, such as an optimiser; nothing is taken of it."""


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
    path: Path,
    *,
    seed: int = 0,
    heads: int | None = None,
    regressor_heads: int | None = None,
    drop_relative_positions: bool = False,
) -> tuple[CAEv2, ImportReport]:
    """A student with the weights of a published checkpoint or of an export; what it does not hold starts from the seed.

    Args:
        path: A file of `torch.save` or a safetensors file, or an exported folder.
        seed: Of the fresh weights.
        heads: Of the encoder, which no shape tells; none: as the file records, or those of the published size of that
            width.
        regressor_heads: The same for the regressor.
        drop_relative_positions: Leave a fine-tuned model's tables of relative positions out; features change.

    Raises:
        UnsafeFile: The file would run code.
        CheckpointError: It holds no whole encoder, shapes that do not fit, or other positions.
    """
    with about_file(path):
        weights = read_weights(path, drop_relative_positions=drop_relative_positions)
        settings = settings_of(weights, heads=heads, regressor_heads=regressor_heads)
        tensors, report = place_weights(weights, settings)
    model = build(settings, seed)
    model.load_state_dict(model.state_dict() | tensors)
    return model, report


def settings_of(
    weights: NamedWeights, *, heads: int | None = None, regressor_heads: int | None = None
) -> ModelSettings:
    """The sizes of the student that weights fit: as the file records them, or read from its shapes; heads as given.

    Raises:
        CheckpointError: They cannot be told.
    """
    if weights.recorded is None:
        return infer_settings(weights.state, heads=heads, regressor_heads=regressor_heads)
    given = {"heads": heads, "regressor_heads": regressor_heads}
    return dataclasses.replace(weights.recorded, **{name: one for name, one in given.items() if one is not None})


def place_weights(weights: NamedWeights, settings: ModelSettings) -> tuple[dict[str, Tensor], ImportReport]:
    """The student's tensors out of a file of any layout, and what became of every key of the file.

    Raises:
        CheckpointError: As `from_official`.
    """
    tensors, named = from_official(weights.state, settings)
    used: dict[str, str] = {}
    for name, place in named.used.items():
        key = weights.keys[name]
        used[key] = used[key] + " and its " + place.rpartition(", ")[2] if key in used else place
    ignored = {weights.keys[name]: reason for name, reason in named.ignored.items()} | weights.ignored
    report = ImportReport(
        layout=weights.layout, used=used, ignored=ignored, missing=named.missing, beside=weights.beside
    )
    return tensors, report


@contextlib.contextmanager
def about_file(path: Path) -> Iterator[None]:
    """Let what is wrong with named tensors begin with the file that they came from."""
    try:
        yield
    except CheckpointError as problem:
        raise CheckpointError(str(problem) if str(path) in str(problem) else f"{path}: {problem}") from None


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
    tensors: dict[str, Tensor] = {}
    used: dict[str, str] = {}
    absent = {part for part in ("projection", "regressor", "head") if not _holds_part(state, expected, part)}
    missing = tuple(name for name in expected if name.split(".")[0] in absent)
    for name in (name for name in expected if name not in missing):
        keys = [_half(name, "q"), _half(name, "v")] if name.endswith("qkv.bias") else [official_name(name)]
        tensors[name] = _take(state, keys, name, tuple(expected[name].shape))
        used.update(zip(keys, (name,) if len(keys) == 1 else _thirds(name), strict=True))
    ignored = {key: _reason_to_ignore(key) for key in state if key not in used}
    ordered = {key: used[key] for key in state if key in used}
    return tensors, ImportReport(used=ordered, ignored=ignored, missing=missing)


def _thirds(name: str) -> tuple[str, str]:
    """Where the two published halves of a bias go; the middle third, of the keys, stays zero."""
    return f"{name}, first third", f"{name}, last third"


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
    if key.endswith("relative_position_bias_table"):
        raise CheckpointError(
            f"{key.removeprefix('encoder.')} holds relative positions that were learned in fine-tuning, and a student "
            "has none: without them its features are others. `caev2 export` turns the whole classifier into one for "
            "timm; `caev2 import FILE RUN --drop-relative-positions` makes a run of the rest."
        )
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
        allowed = _POSITION_TOLERANCES.get(state[key].dtype, _POSITION_TOLERANCE)
        if not difference <= allowed:
            raise CheckpointError(
                f"{key} differs from the positions of CAE v2 by up to {difference:.3g}, not by the "
                f"{allowed:.0e} of rounding. The method's table has the row in its first half; "
                "MAE's, with the column first, does not fit, nor do learned or resized positions."
            )
