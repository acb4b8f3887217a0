"""What a student is trained towards: which tokens count, how much, by which distance, and to which form of the target.

The defaults are the published ones (Zhang et al., 2211.09799); everything else is for ablations. No torch here, so
that recipes can be listed without it.
"""

from dataclasses import dataclass
from typing import Literal

from caev2.errors import ConfigError

Distance = Literal["cosine", "mse", "smooth_l1", "l1"]
TargetNorm = Literal["l2", "none", "layer_norm", "whiten"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The loss; a weight of 0 leaves tokens of that kind unsupervised, their cosine is logged all the same."""

    distance: Distance = "cosine"
    """`cosine`: one minus it. `mse`, `smooth_l1`, `l1`: of the student's output as it is to the target in the form of
    `target_norm`, averaged over channels."""
    average: Literal["token_mean", "group_mean"] = "token_mean"
    """`token_mean`: each kind of token weighs as much as it has members, so the balance moves with the mask.
    `group_mean`: the class token, the visible and the masked tokens are averaged apart first."""
    class_weight: float = 1.0
    """Of the class token."""
    visible_weight: float = 1.0
    """Of the visible patches."""
    masked_weight: float = 1.0
    """Of the masked patches."""
    target_norm: TargetNorm = "l2"
    """What is done to a target's latents first. `l2`: unit length, which the cosine implies. `none`: as the teacher
    gives them. `layer_norm`: mean 0 and deviation 1 of each token. `whiten`: mean 0 and covariance one over the store,
    class token and patches apart."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ConfigError: A weight is negative, or all are 0: nothing would be learnt.
        """
        for name in ("class_weight", "visible_weight", "masked_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"loss.{name} is {getattr(self, name)}; it must be at least 0.")
        if not any(self.weights):
            raise ConfigError("All weights of the loss are 0, so nothing would be learnt. Give one at least.")

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of the class token, the visible and the masked patches."""
        return self.class_weight, self.visible_weight, self.masked_weight

    def shares(self, visible: int, masked: int) -> tuple[float, float, float]:
        """How much one token of each kind counts; over all tokens of an image that is 1.

        Args:
            visible: How many patches are visible.
            masked: How many are masked and predicted, 0 without a regressor.
        """
        counts = (1, visible, masked)
        sizes = counts if self.average == "token_mean" else tuple(map(bool, counts))
        whole = sum(weight * size for weight, size in zip(self.weights, sizes, strict=True))
        kinds = zip(self.weights, sizes, counts, strict=True)
        return tuple(weight * size / count / whole if count else 0.0 for weight, size, count in kinds)  # type: ignore[return-value]


PUBLISHED = LossSettings()
