"""Weighted k nearest neighbours on unit features: what a representation knows with nothing trained on it.

The protocol is that of instance discrimination (Wu et al., 1805.01978, section 3.4) and of DINO (Caron et
al., 2104.14294): cosine similarity; the k most similar train images vote, each with weight
exp(similarity / temperature).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from caev2.errors import ConfigError
from caev2.eval.checks import check_finite, check_labels


def knn_predict(
    train_features: Float[Tensor, "train width"],
    train_labels: Int[Tensor, " train"],
    test_features: Float[Tensor, "test width"],
    *,
    classes: int,
    k: int = 20,  # DINO reports 20, and so do those who compare with it
    temperature: float = 0.07,
    chunk_images: int = 512,
) -> Int[Tensor, " test"]:
    """The class that the k nearest train images of each test image vote for.

    Exact: every pair is compared. Of equally similar train images the first ones count, of equally voted
    classes the first wins, so the answer is a function of the features alone.

    Args:
        train_features: Any length but zero; they are L2-normalised here.
        train_labels: 0 .. classes-1.
        test_features: On the same device.
        classes: How many there are.
        k: How many neighbours vote, 1 .. train.
        temperature: Above 0; the smaller, the more the nearest counts.
        chunk_images: Test images compared at once; changes the memory, not the result.

    Returns:
        A class for every test image.

    Raises:
        ConfigError: k or the temperature is out of range.
        CheckpointError: A feature is not finite.
        SourceError: A label is out of range.
    """
    _check_settings(k, temperature, len(train_labels))
    check_labels(train_labels, classes, "train")
    check_finite(train_features, "train")
    check_finite(test_features, "test")
    train = normalize(train_features.float(), dim=1)
    predictions = [
        _vote(normalize(chunk.float(), dim=1) @ train.T, train_labels, classes, k, temperature)
        for chunk in test_features.split(chunk_images)
    ]
    return torch.cat(predictions)


def _check_settings(k: int, temperature: float, train_images: int) -> None:
    if not 1 <= k <= train_images:
        raise ConfigError(
            f"kNN cannot ask k = {k} of {train_images} train images. Give 1 to {train_images} neighbours."
        )
    if not temperature > 0:
        raise ConfigError(f"The temperature of kNN is {temperature}. Give a number above 0.")


def _vote(
    similarity: Float[Tensor, "test train"],
    labels: Int[Tensor, " train"],
    classes: int,
    k: int,
    temperature: float,
) -> Int[Tensor, " test"]:
    nearest, index = _nearest(similarity, k)
    # relative to the nearest: the same votes up to a factor, which no temperature can drive to 0 or infinity
    weight = ((nearest - nearest[:, :1]).double() / temperature).exp()
    # float64, so that the order of the sum cannot decide between classes whose votes differ
    votes = weight.new_zeros(len(similarity), classes)
    return votes.scatter_add_(1, labels[index].long(), weight).argmax(dim=1)


def _nearest(
    similarity: Float[Tensor, "test train"], k: int
) -> tuple[Float[Tensor, "test neighbour"], Int[Tensor, "test neighbour"]]:
    """The k largest similarities, largest first; among equal ones the first train images."""
    train_images = similarity.shape[1]
    value, index = similarity.topk(min(k + 1, train_images), dim=1)
    if k < train_images:
        # topk takes any of several equal values, which matters where the last taken equals the first left out
        tied = (value[:, k - 1] == value[:, k]).nonzero().flatten()
        value, index = value[:, :k], index[:, :k]
        if len(tied):
            in_order = similarity[tied].sort(dim=1, descending=True, stable=True)
            value[tied], index[tied] = in_order.values[:, :k], in_order.indices[:, :k]
    return value, index
