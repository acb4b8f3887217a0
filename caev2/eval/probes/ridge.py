"""Ridge regression onto classes, in closed form: the head of few-shot probes.

Targets are ±1, one against the rest, and the bias is free, as in scikit-learn's `RidgeClassifier`. The penalty is
chosen among several by the exact leave-one-out error, which one decomposition of the features gives for all of them
(Rifkin & Lippert 2007, "Notes on regularized least squares"), as `RidgeClassifierCV` does.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from caev2.errors import ConfigError
from caev2.eval.checks import check_finite, check_labels, check_several_classes

PENALTIES = tuple(10.0**power for power in range(-4, 4))
"""To choose from, in units of the summed variance of the features over images, so that their scale does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeHead:
    """A linear classifier."""

    weight: Float64[Tensor, "class width"]
    bias: Float64[Tensor, " class"]
    penalty: float
    """In the features' own units: scikit-learn's `alpha`."""
    left_out_error: float
    """Mean squared error on each image by the head of all others."""

    def scores(self, features: Float[Tensor, "image width"]) -> Float64[Tensor, "image class"]:
        """The score of every class."""
        return features.double() @ self.weight.T + self.bias


def fit_ridge(
    features: Float[Tensor, "image width"],
    labels: Int[Tensor, " image"],
    *,
    classes: int,
    penalties: tuple[float, ...] = PENALTIES,
    relative: bool = True,
) -> RidgeHead:
    """The head that minimises the squared error to ±1 plus penalty · ‖weight‖², with the best of some penalties.

    Args:
        features: Of any scale.
        labels: 0 .. classes-1, of two classes or more.
        classes: How many there are.
        penalties: To choose from; of equally good ones the first.
        relative: Whether penalties are multiples of the features' summed variance, and not what they are.

    Raises:
        CheckpointError: A feature is not finite.
        SourceError: A label is out of range, or there is one class only.
        ConfigError: There is no penalty, or one is not above 0.
    """
    if not penalties or not min(penalties) > 0:
        raise ConfigError(f"The penalties to choose from are {penalties}. Give at least one, all above 0.")
    check_labels(labels, classes, "train")
    check_several_classes(labels, "train")
    check_finite(features, "train")
    inputs = features.double()  # squares of float32 rounding would drown weak directions
    targets = _signs(labels, classes)
    centre, level = inputs.mean(0), targets.mean(0)
    left, spread, right = torch.linalg.svd(inputs - centre, full_matrices=False)
    unit = float(spread.square().sum()) / len(inputs) if relative else 1.0
    scaled = [penalty * (unit or 1.0) for penalty in penalties]
    errors = [_left_out_error(left, spread, targets - level, penalty) for penalty in scaled]
    best = errors.index(min(errors))
    weight = (left.T @ (targets - level)).T * (spread / (spread.square() + scaled[best])) @ right
    return RidgeHead(
        weight=weight, bias=level - weight @ centre, penalty=scaled[best], left_out_error=float(errors[best])
    )


def _signs(labels: Int[Tensor, " image"], classes: int) -> Float64[Tensor, "image class"]:
    signs = torch.full((len(labels), classes), -1.0, dtype=torch.float64, device=labels.device)
    return signs.scatter_(1, labels.long()[:, None], 1.0)


def _left_out_error(
    left: Float64[Tensor, "image direction"],
    spread: Float64[Tensor, " direction"],
    targets: Float64[Tensor, "image class"],
    penalty: float,
) -> float:
    """Mean squared leave-one-out error: residuals over what each image does not explain of itself."""
    kept = spread.square() / (spread.square() + penalty)
    residual = targets - left @ (kept[:, None] * (left.T @ targets))
    own = left.square() @ kept + 1 / len(left)  # the bias explains one part in `image` of every target
    return float((residual / (1 - own)[:, None].clamp(min=1e-12)).square().mean())
