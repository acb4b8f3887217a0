"""Files of weights that others wrote: which layout they have, and their tensors under the published names.

    pre-training    names begin with `encoder.`; regressor and head may be there as well, or not
    fine-tuned      a classifier under bare names, with `fc_norm`, `head` and often tables of relative positions
    timm            an encoder under timm's names, as `caev2 export` writes it

What a file says of itself in `caev2`, an entry of a safetensors file's metadata, settles sizes that no shape tells.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from caev2.errors import CheckpointError, ConfigError
from caev2.pretrain.identity import model_settings
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.untrusted import read_metadata, read_untrusted

Layout = Literal["pre-training", "fine-tuned", "timm"]

FACTS = "caev2"
"""The entry of an exported file's metadata that says what it is."""
EXPORTED = "model.safetensors"
"""The weights in an exported folder, as timm and others look for them."""
_WRAPPERS = ("model", "module", "state_dict")
_TABLE = "attn.relative_position_bias_table"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedWeights:
    """The tensors of a file under the published names."""

    layout: Layout
    state: dict[str, Tensor]
    keys: dict[str, str]
    """For every name in `state`, the key of the file; two halves of one bias have the same."""
    ignored: dict[str, str] = field(default_factory=dict)
    """Keys of the file that have no place in `state`, and why."""
    beside: tuple[str, ...] = ()
    """What lies beside the weights, such as an optimiser."""
    recorded: ModelSettings | None = None
    """Sizes of the student, where the file tells them itself."""


def read_weights(path: Path, *, drop_relative_positions: bool = False) -> NamedWeights:
    """The weights of a file; nothing in it is ever run.

    Args:
        path: A file of `torch.save` or a safetensors file, or an exported folder that holds `model.safetensors`.
        drop_relative_positions: Leave tables of relative positions out, which changes the features.

    Raises:
        UnsafeFile: The file would run code.
        CheckpointError: There is none, it is damaged, or of no layout that is known.
    """
    file = path / EXPORTED if path.is_dir() else path
    content = read_untrusted(file)
    return recognise(content, recorded=_recorded(file), drop_relative_positions=drop_relative_positions)


def _recorded(file: Path) -> ModelSettings | None:
    """The sizes that an exported file tells; none where it tells none, or none that can be."""
    try:
        return model_settings(json.loads(read_metadata(file).get(FACTS, ""))["model"])
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
        return None


def recognise(
    content: Any, *, recorded: ModelSettings | None = None, drop_relative_positions: bool = False
) -> NamedWeights:
    """What was read from a file, under the published names.

    Raises:
        CheckpointError: It is of no layout that is known.
    """
    tensors, beside = _unwrap(content)
    if any(name.startswith("encoder.") for name in tensors):
        return NamedWeights(
            layout="pre-training",
            state=tensors,
            keys={name: name for name in tensors},
            beside=beside,
            recorded=recorded,
        )
    if {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= tensors.keys():
        layout: Layout = "timm" if "blocks.0.attn.qkv.bias" in tensors else "fine-tuned"
        return _named_bare(tensors, layout, beside, recorded, drop_relative_positions)
    found = ", ".join(list(tensors)[:3]) or "no tensors"
    raise CheckpointError(
        f"An official CAE v2 checkpoint has keys that begin with 'encoder.', a fine-tuned one or an exported encoder "
        f"has blocks.0.attn.qkv.weight; this file has {found}. Give one of these."
    )


def unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors of a file by name, out of `model`, `module` or `state_dict`, without a leading `module.`."""
    return _unwrap(content)[0]


def _unwrap(content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    beside: list[str] = []
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            beside += [str(name) for name in content if name != wrapper]
            content = content[wrapper]
    named = dict(content) if isinstance(content, Mapping) else {}
    tensors = {str(name).removeprefix("module."): value for name, value in named.items() if isinstance(value, Tensor)}
    beside += [str(name) for name, value in named.items() if not isinstance(value, Tensor)]
    return tensors, tuple(beside)


def _named_bare(
    tensors: Mapping[str, Tensor],
    layout: Layout,
    beside: tuple[str, ...],
    recorded: ModelSettings | None,
    drop_relative_positions: bool,
) -> NamedWeights:
    """Bare names, published or timm's, as those of an encoder."""
    state: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    ignored: dict[str, str] = {}
    for key, tensor in tensors.items():
        reason = _reason_without_a_place(key, tensor, tensors, drop_relative_positions)
        if reason is not None:
            ignored[key] = reason
            continue
        for name, part in _published(key, tensor).items():
            state[name], keys[name] = part, key
    return NamedWeights(layout=layout, state=state, keys=keys, ignored=ignored, beside=beside, recorded=recorded)


def _reason_without_a_place(
    key: str, tensor: Tensor, tensors: Mapping[str, Tensor], drop_relative_positions: bool
) -> str | None:
    """Why a tensor of a classifier is none of an encoder's; none: it is one, or has to be refused."""
    if key.startswith("head."):
        return "the classifier of what it was fine-tuned on; a student has none"
    if key.endswith("attn.relative_position_index"):
        return "computed from the grid"
    if key.startswith("fc_norm.") and "norm.weight" in tensors:
        return "the norm of a classifier's pooled tokens; the encoder's own is there"
    if key.endswith(_TABLE) and not tensor.any():
        return "all zeros: it adds nothing to any score of attention"
    if key.endswith(_TABLE) and drop_relative_positions:
        return "left out as asked: the features are not those of the file"
    return None


def _published(key: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor under bare names as one or two of the published ones.

    Raises:
        CheckpointError: Keys have a bias, which no student of CAE v2 has, or the shape is none of a bias.
    """
    name = "encoder." + re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", re.sub(r"^fc_norm\.", "norm.", key))
    if not key.endswith("attn.qkv.bias"):
        return {name: tensor}
    if tensor.ndim != 1 or not len(tensor) or len(tensor) % 3:
        raise CheckpointError(f"{key} has shape {tuple(tensor.shape)}, which is no bias of three equal parts.")
    query, middle, value = tensor.chunk(3)
    if middle.any():
        raise CheckpointError(
            f"{key} gives keys a bias of up to {middle.abs().max().item():.3g}; in CAE v2 they have none. This is a "
            "vision transformer of another method. Give an export of `caev2 export`, or an official file."
        )
    stem = name.removesuffix("qkv.bias")
    return {stem + "q_bias": query, stem + "v_bias": value}
