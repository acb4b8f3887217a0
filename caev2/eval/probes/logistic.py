"""Multinomial logistic regression, solved rather than trained.

The objective is convex: the mean cross-entropy plus weight_decay / 2 · ‖weight‖², the bias free. L-BFGS
minimises it with no learning rate, batch order or seed, so two kinds of features are compared at their best
and not at how quickly they are learned: a probe that stops early flatters whatever is easy to fit.

Strongly correlated features (pixels) would need hundreds of steps. In the leading eigenvectors of the
features' covariance the curvature is known beforehand; dividing it out leaves about ten.

`torch.optim.LBFGS` with its strong-Wolfe search was tried on features of the demo (5,401 images, 17 weight decays): as
it is, it took 13 times as long on pixels and met its limit of 300 steps at weak decays. With the same curvature
divided out it took 0.4 to 3.3 times as long, but its search, in float32, gave up at objectives as much as 0.02 above
the best known ones, so heads would have been compared by how far a search came.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

_REMEMBERED_STEPS = 10  # of L-BFGS: the choice of scipy, and so of scikit-learn
_LINE_TRIALS = 20
_FLAT_ENOUGH = 0.3  # a step ends where the slope along it is this share of the slope at its start
_EXACT_WIDTH = 1024  # up to here the covariance is decomposed whole, in under a second
_LEADING = 128
_SWEEPS = 5  # of subspace iteration: rough eigenvectors cost steps, not accuracy
_ROUNDING = 1e-7  # a gradient of this length is zero in float32 for features of unit variance


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear classifier."""

    weight: Float[Tensor, "class width"]
    bias: Float[Tensor, " class"]
    steps: int
    """How many it took."""
    converged: bool
    """Whether the gradient met the tolerance; if not, the head is as good as the last step left it."""

    def logits(self, features: Float[Tensor, "image width"]) -> Float[Tensor, "image class"]:
        """The score of every class."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Eigenvectors of the features' covariance, all or the leading ones, by falling variance."""

    vectors: Float[Tensor, "width direction"]
    variances: Float[Tensor, " direction"]


def spectrum(features: Float[Tensor, "image width"]) -> Spectrum:
    """The directions in which centred features vary most: exact up to 1,024 channels, then approximate."""
    images, width = features.shape
    if width <= _EXACT_WIDTH:
        variances, vectors = torch.linalg.eigh(features.T @ features / images)
        return Spectrum(vectors=vectors.flip(1), variances=variances.flip(0).clamp(min=0))
    # subspace iteration from some of the images themselves: nothing random to seed
    vectors = torch.linalg.qr(features[:: max(1, images // _LEADING)][:_LEADING].T).Q
    for _ in range(_SWEEPS):
        vectors = torch.linalg.qr(((features @ vectors).T @ features).T).Q
    scores = features @ vectors
    variances, turn = torch.linalg.eigh(scores.T @ scores / images)
    return Spectrum(vectors=(vectors @ turn).flip(1), variances=variances.flip(0).clamp(min=0))


def fit_head(
    features: Float[Tensor, "image width"],
    labels: Int[Tensor, " image"],
    *,
    classes: int,
    weight_decay: float,
    directions: Spectrum,
    start: Head | None = None,
    max_steps: int = 300,
    tolerance: float = 1e-3,
) -> Head:
    """The head that minimises the mean cross-entropy plus the decay.

    Args:
        features: Centred; about unit variance in every channel.
        labels: 0 .. classes-1.
        classes: How many there are; one without images only gets a low bias.
        weight_decay: Above 0. In scikit-learn's terms 1 / (C · images).
        directions: `spectrum(features)`; makes it fast, does not change what is found.
        start: Where to begin; the head of a neighbouring weight decay saves steps. None: zero.
        max_steps: Where to stop if it does not converge.
        tolerance: It has converged when the gradient is this share of the gradient at zero.
    """
    problem = _Problem(features, labels, classes, weight_decay, directions)
    if start is None:
        weights = features.new_zeros(classes, features.shape[1] + 1)
    else:
        weights = torch.cat([start.weight, start.bias[:, None]], dim=1)
    weights, steps, converged = _minimise(problem, weights, max_steps, tolerance)
    return Head(weight=weights[:, :-1], bias=weights[:, -1], steps=steps, converged=converged)


class _Problem:
    """The objective of one head; its weights carry the bias as their last column."""

    def __init__(
        self,
        features: Float[Tensor, "image width"],
        labels: Int[Tensor, " image"],
        classes: int,
        weight_decay: float,
        directions: Spectrum,
    ):
        self.features = features
        self.target = one_hot(labels.long(), classes).to(features.dtype)
        self.weight_decay = weight_decay
        self._vectors = directions.vectors
        # at zero logits the curvature of the loss is variance / classes in every direction
        curvature = directions.variances / classes + weight_decay
        self._relief = curvature[-1] / curvature - 1

    def logits(self, weights: Float[Tensor, "class column"]) -> Float[Tensor, "image class"]:
        return self.features @ weights[:, :-1].T + weights[:, -1]

    def gradient(
        self, weights: Float[Tensor, "class column"], logits: Float[Tensor, "image class"]
    ) -> Float[Tensor, "class column"]:
        # (class, image) @ (image, width): the transposed product is five times slower on a CPU
        residual = (logits.softmax(dim=1) - self.target).T / len(logits)
        to_weight = residual @ self.features + self.weight_decay * weights[:, :-1]
        return torch.cat([to_weight, residual.sum(dim=1, keepdim=True)], dim=1)

    def relieve(self, gradient: Float[Tensor, "class column"]) -> Float[Tensor, "class column"]:
        """The gradient with the steepness of the leading directions divided out."""
        weight = gradient[:, :-1]
        eased = weight + (weight @ self._vectors * self._relief) @ self._vectors.T
        return torch.cat([eased, gradient[:, -1:]], dim=1)

    def step_length(
        self,
        logits: Float[Tensor, "image class"],
        change: Float[Tensor, "image class"],
        decay_slope: float,
        decay_curvature: float,
        start_slope: float,
    ) -> float:
        """How far to go along a direction: Newton's method on a convex function, kept in its bracket.

        Needs no pass over the features, for logits are linear along a line.
        """
        length, low, high = 1.0, 0.0, float("inf")
        for _ in range(_LINE_TRIALS):
            share = (logits + length * change).softmax(dim=1)
            slope = _dot(share - self.target, change) / len(logits) + decay_slope + length * decay_curvature
            if abs(slope) <= _FLAT_ENOUGH * abs(start_slope):
                break
            low, high = (length, high) if slope < 0 else (low, length)
            spread = _dot(share * change, change) - float((share * change).sum(dim=1).square().sum())
            curvature = spread / len(logits) + decay_curvature
            length = length - slope / curvature if curvature > 0 else low
            if not low < length < high:
                length = 2 * max(low, 0.5) if high == float("inf") else (low + high) / 2
        return length


def _dot(one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"]) -> float:
    return float((one * other).sum(dtype=torch.float64))


def _minimise(
    problem: _Problem, weights: Float[Tensor, "class column"], max_steps: int, tolerance: float
) -> tuple[Float[Tensor, "class column"], int, bool]:
    """L-BFGS (Nocedal & Wright, algorithm 7.5): the weights, the steps taken and whether they sufficed."""
    at_zero = problem.gradient(torch.zeros_like(weights), torch.zeros_like(problem.target))
    goal = max(tolerance * float(at_zero.norm()), _ROUNDING)
    logits = problem.logits(weights)
    gradient = problem.gradient(weights, logits)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    for taken in range(max_steps):
        if float(gradient.norm()) <= goal:
            return weights, taken, True
        direction = _direction(problem, gradient, pairs)
        slope = _dot(gradient, direction)
        if slope >= 0:  # rounding has eaten what is left of the gradient
            return weights, taken, False
        change = problem.logits(direction)
        decay = problem.weight_decay
        length = problem.step_length(
            logits,
            change,
            decay_slope=decay * _dot(weights[:, :-1], direction[:, :-1]),
            decay_curvature=decay * _dot(direction[:, :-1], direction[:, :-1]),
            start_slope=slope,
        )
        moved = length * direction
        weights, logits, before = weights + moved, logits + length * change, gradient
        gradient = problem.gradient(weights, logits)
        bend = _dot(moved, gradient - before)
        if bend > 0:
            pairs = [*pairs, (moved, gradient - before, 1 / bend)][-_REMEMBERED_STEPS:]
    return weights, max_steps, float(gradient.norm()) <= goal


def _direction(
    problem: _Problem, gradient: Float[Tensor, "class column"], pairs: list[tuple[Tensor, Tensor, float]]
) -> Float[Tensor, "class column"]:
    """The two-loop recursion: minus the gradient through the inverse curvature that past steps have shown."""
    direction, shares = -gradient, []
    for moved, turned, inverse in reversed(pairs):
        shares.append(inverse * _dot(moved, direction))
        direction = direction - shares[-1] * turned
    direction = problem.relieve(direction)
    if pairs:
        _, turned, inverse = pairs[-1]
        direction = direction / (inverse * _dot(problem.relieve(turned), turned))
    for moved, turned, inverse in pairs:
        direction = direction + (shares.pop() - inverse * _dot(turned, direction)) * moved
    return direction
