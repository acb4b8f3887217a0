"""Few-shot probes: what a representation makes of one, five or ten labelled images of each class.

Several draws of the labelled images are judged on all test images, for with one image a class the draw decides more
than the features do. The head is ridge regression on the class token (see `ridge`), as in big_vision's few-shot
evaluation; unlike there, its penalty is chosen by leaving out labelled images and never by test images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caev2.errors import ConfigError, SourceError
from caev2.eval.checks import check_finite, check_labels
from caev2.eval.probes.ridge import PENALTIES, fit_ridge
from caev2.store.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotSettings:
    """How many labelled images, and how often they are drawn."""

    shots: tuple[int, ...] = (1, 5, 10)
    """Labelled images of each class; one probe each."""
    draws: int = 5
    """Of the labelled images, for each number of shots."""

    def __post_init__(self):
        if not self.shots or min(self.shots) < 1:
            raise ConfigError(f"Few-shot probes cannot use {self.shots} images a class. Give numbers of at least 1.")
        if self.draws < 1:
            raise ConfigError(f"Few-shot probes cannot use {self.draws} draws. Give at least 1.")


def few_shot_predict(
    train_features: Float[Tensor, "train width"],
    train_labels: Int[Tensor, " train"],
    test_features: Float[Tensor, "test width"],
    *,
    classes: int,
    shots: int,
    draws: int = 5,
    seed: int = 0,
    penalties: tuple[float, ...] = PENALTIES,
) -> Int[Tensor, "draw test"]:
    """The class of each test image, by a ridge head on each of several draws of labelled images.

    Args:
        train_features: To draw from.
        train_labels: 0 .. classes-1.
        test_features: On the same device.
        classes: How many there are.
        shots: Labelled images of each class.
        draws: How often they are drawn.
        seed: Of the draws.
        penalties: See `fit_ridge`.

    Raises:
        SourceError: A class has too few images, or a label is out of range.
        CheckpointError: A feature is not finite.
        ConfigError: A number is out of range.
    """
    FewShotSettings(shots=(shots,), draws=draws)
    check_labels(train_labels, classes, "train")
    check_shots(train_labels, (shots,))
    check_finite(test_features, "test")
    answers = [
        fit_ridge(train_features[chosen], train_labels[chosen], classes=classes, penalties=penalties)
        .scores(test_features)
        .argmax(dim=1)
        for chosen in draw_shots(train_labels, shots=shots, draws=draws, seed=seed)
    ]
    return torch.stack(answers)


def draw_shots(
    labels: Int[Tensor, " image"], *, shots: int, draws: int, seed: int
) -> Iterator[Int[Tensor, " labelled"]]:
    """Indices of the labelled images of each draw, ascending; draws may share images.

    Of one draw, fewer shots are a part of more: the numbers of shots are compared on nested sets.
    """
    members = [(labels == kind).nonzero().flatten() for kind in labels.unique()]
    for draw in range(draws):
        chosen = []
        for place, images in enumerate(members):
            order = torch.from_numpy(Draws(seed, "few-shot", draw, place).permutation(len(images)))
            chosen.append(images[order[:shots].to(images.device)])
        yield torch.cat(chosen).sort().values


def check_shots(labels: Int[Tensor, " image"], shots: Sequence[int]) -> None:
    """Refuse more shots than the smallest class has images.

    Raises:
        SourceError: It has too few.
    """
    kinds, counts = labels.unique(return_counts=True)
    least = int(counts.min())
    if max(shots) > least:
        raise SourceError(
            f"Class {int(kinds[counts.argmin()])} has {least} train images, fewer than the {max(shots)} of a few-shot "
            f"probe. Give --shots {least} or less, or more images."
        )
