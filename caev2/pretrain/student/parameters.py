"""Which parameters decay, and the optimiser over them."""

import torch
from torch import nn


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay acts on a parameter: not on vectors and biases.

    Class and mask token, three-dimensional, do decay: the published code exempts them in fine-tuning only.
    """
    return parameter.ndim > 1 and not name.endswith(".bias")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups for AdamW: what decays and what does not; frozen parameters are in neither.

    Each group also lists the `names` of its parameters, in the same order.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = []
    for decaying, strength in ((True, weight_decay), (False, 0.0)):
        members = [(name, parameter) for name, parameter in trained if decays(name, parameter) is decaying]
        groups.append(
            {
                "params": [parameter for _, parameter in members],
                "names": [name for name, _ in members],
                "weight_decay": strength,
            }
        )
    return groups


def adamw(
    model: nn.Module,
    *,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW over the model's groups, with the published values as defaults.

    The learning rate is 0 until the schedule sets it. Fused, it is one pass over the weights, and a tensor can tell it
    to leave them alone (`TrainStep`).
    """
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=epsilon, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float):
    """One learning rate for every group: pre-training has no layer decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
