"""What AdamW keeps of every parameter, under the parameter's name.

The optimiser itself numbers its parameters, in an order that only the model knows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caev2.errors import CheckpointError

_KEYS = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "steps": "step"}
"""Where AdamW keeps what a checkpoint calls so."""


def moment_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `exp_avg/<name>`, `exp_avg_sq/<name>` and `steps/<name>`."""
    names, state = _names(model, optimizer), optimizer.state_dict()["state"]
    return {f"{kind}/{names[index]}": kept[key] for index, kept in state.items() for kind, key in _KEYS.items()}


def moment_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What `optimizer.load_state_dict` takes, of what `moment_tensors` gave.

    Raises:
        CheckpointError: The tensors do not fit the model; `path` is where they came from.
    """
    names, parameters = _names(model, optimizer), dict(model.named_parameters())
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        moments.setdefault(name, {})[_KEYS.get(kind, kind)] = tensor
    for name, kept in moments.items():
        if name not in names or set(kept) != set(_KEYS.values()):
            raise CheckpointError(
                f"{path} has an optimiser state of {name} that does not fit: {sorted(kept)}, wanted "
                f"{sorted(_KEYS.values()) if name in names else 'none'}. Start a new run."
            )
        if any(kept[key].shape != parameters[name].shape for key in ("exp_avg", "exp_avg_sq")):
            raise CheckpointError(
                f"{path} has an optimiser state of {name} whose shape is {tuple(kept['exp_avg'].shape)}, the "
                f"parameter's is {tuple(parameters[name].shape)}. Start a new run."
            )
    state = {index: moments[name] for index, name in enumerate(names) if name in moments}
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the optimiser's parameters, in the order in which it numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
