"""Learning rates that fall with the distance from the head, and what weight decay acts on."""

import re
from collections.abc import Iterator

import torch
from torch import nn

from caev2.pretrain.student.parameters import decays

_BLOCK = re.compile(r"encoder\.(?:trunk\.)?blocks\.(\d+)\.")
_TABLE = "relative_position_bias_table"
_NEVER = ("class_embedding", "cls_token", "pos_embed", "positional_embedding")
"""Ends of names that do not decay: the published code exempts the class token in fine-tuning, not in pre-training."""


def layer_of(name: str, depth: int) -> int:
    """How far up a parameter lies: 0 patches and tokens, i + 1 block i, depth + 1 norm and head."""
    if found := _BLOCK.match(name):
        return int(found[1]) + 1
    return 0 if name.startswith("encoder.") else depth + 1


def lr_scale(name: str, depth: int, decay: float) -> float:
    """What the learning rate of a parameter is multiplied with: 1 for the head, and once `decay` for every step down.

    Clark et al., ELECTRA (2003.10555); in vision since BEiT (2106.08254).
    """
    return decay ** (depth + 1 - layer_of(name, depth))


def decays_in_tuning(name: str, parameter: nn.Parameter, *, tables: bool = True) -> bool:
    """Whether weight decay acts on a parameter: not on vectors, biases, the class token and positions.

    Args:
        name: Of the parameter.
        parameter: Itself.
        tables: Whether it acts on the biases of relative positions, as published.
    """
    if name.endswith(_TABLE):
        return tables
    return decays(name, parameter) and not name.endswith(_NEVER)


def tuning_groups(
    model: nn.Module, *, depth: int, layer_decay: float, weight_decay: float, decay_tables: bool
) -> list[dict]:
    """Groups for AdamW, two for every layer; frozen parameters are in none.

    Each also has the `names` of its parameters and the `lr_scale` of its learning rate.
    """
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in _trained(model):
        key = layer_of(name, depth), decays_in_tuning(name, parameter, tables=decay_tables)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "weight_decay": weight_decay if key[1] else 0.0,
                "lr_scale": lr_scale(name, depth, layer_decay),
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def set_learning_rates(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The learning rate of the head; every other layer has its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
