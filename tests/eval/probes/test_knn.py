"""kNN against scikit-learn, and what happens at ties, at the edges and with broken input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.eval.probes.knn import knn_predict


def made_up(seed: int, *, train: int = 300, test: int = 90, width: int = 12, classes: int = 5, dtype=torch.float32):
    """Overlapping clouds, so that neighbours disagree."""
    draws = np.random.Generator(np.random.Philox(seed))
    centres = draws.normal(size=(classes, width))
    train_labels, test_labels = draws.integers(0, classes, train), draws.integers(0, classes, test)
    features = [
        centres[labels] + 1.5 * draws.normal(size=(len(labels), width)) for labels in (train_labels, test_labels)
    ]
    return *(torch.tensor(each, dtype=dtype) for each in features), torch.from_numpy(train_labels)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (299, 0.2), (300, 0.02)])
@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_equal_scikit_learn(seed, k, temperature):
    train, test, labels = made_up(seed)
    oracle = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    ).fit(train.double().numpy(), labels.numpy())
    found = knn_predict(train, labels, test, classes=5, k=k, temperature=temperature)
    np.testing.assert_array_equal(found.numpy(), oracle.predict(test.double().numpy()))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 33))
def test_chunks_do_not_change_the_answer(seed, k, chunk_images):
    train, test, labels = made_up(seed, train=40, test=33)
    whole = knn_predict(train, labels, test, classes=5, k=k)
    assert torch.equal(knn_predict(train, labels, test, classes=5, k=k, chunk_images=chunk_images), whole)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_the_length_of_a_feature_does_not_matter(seed, k):
    train, test, labels = made_up(seed, train=40, test=33)
    # powers of two, so that the normalised features are the same bits
    scaled = train * 2.0 ** (torch.arange(40) % 7 - 3)[:, None]
    assert torch.equal(
        knn_predict(scaled, labels, 8 * test, classes=5, k=k), knn_predict(train, labels, test, classes=5, k=k)
    )


def test_a_train_image_is_its_own_nearest_neighbour():
    train, _, labels = made_up(3)
    assert torch.equal(knn_predict(train, labels, train, classes=5, k=1), labels)


def test_the_nearest_decides_at_a_low_temperature_and_the_many_at_a_high_one():
    train = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    labels = torch.tensor([0, 1, 1])
    test = torch.tensor([[1.0, 0.0]])
    assert knn_predict(train, labels, test, classes=2, k=3, temperature=0.05).item() == 0
    assert knn_predict(train, labels, test, classes=2, k=3, temperature=5.0).item() == 1
    # exp(1 / temperature) alone would overflow here
    assert knn_predict(train, labels, test, classes=2, k=3, temperature=1e-6).item() == 0


def test_among_equally_similar_train_images_the_first_count():
    train = torch.eye(4)[[0, 1, 1, 1, 1, 1, 1]]
    labels = torch.tensor([0, 1, 2, 2, 3, 3, 3])
    test = torch.eye(4)[[1, 0]]
    # of the six equal ones, k = 3 takes those labelled 1, 2, 2; k = 1 the one labelled 1
    assert knn_predict(train, labels, test, classes=4, k=3)[0].item() == 2
    assert knn_predict(train, labels, test, classes=4, k=1).tolist() == [1, 0]


def test_among_equally_voted_classes_the_first_wins():
    train = torch.eye(3)[[0, 0, 0, 0]]
    labels = torch.tensor([2, 1, 1, 2])
    assert knn_predict(train, labels, torch.eye(3)[:1], classes=3, k=4).item() == 1


def test_half_precision_features_are_compared_in_single_precision():
    train, test, labels = made_up(5, dtype=torch.float16)
    assert torch.equal(
        knn_predict(train, labels, test, classes=5), knn_predict(train.float(), labels, test.float(), classes=5)
    )


@pytest.mark.parametrize(
    ("k", "temperature"), [(0, 0.07), (-1, 0.07), (41, 0.07), (5, 0.0), (5, -1.0), (5, float("nan"))]
)
def test_settings_out_of_range_are_refused(k, temperature):
    train, test, labels = made_up(0, train=40)
    with pytest.raises(ConfigError, match="Give"):
        knn_predict(train, labels, test, classes=5, k=k, temperature=temperature)


def test_features_that_are_not_finite_are_refused_and_located():
    train, test, labels = made_up(0)
    test[7, 3], test[9, 0] = float("nan"), float("inf")
    with pytest.raises(CheckpointError, match=r"test features of 2 of 90 images are not finite.* number 7"):
        knn_predict(train, labels, test, classes=5)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_labels_outside_the_classes_are_refused(wrong):
    train, test, labels = made_up(0)
    labels[3] = wrong
    with pytest.raises(SourceError, match=f"train labels reach from .*{wrong}"):
        knn_predict(train, labels, test, classes=5)
