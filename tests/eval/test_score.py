"""Numbers made of answers: per class as scikit-learn counts, intervals beside each other."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score

from caev2.eval.interval import spread, wilson
from caev2.eval.result import Judged, ProbeResult, print_result
from caev2.eval.score import score_answers


def answers(seed: int, *, draws: int = 1, images: int = 200, classes: int = 5):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    wrong = random.random((draws, images)) < 0.3
    predicted = np.where(wrong, random.integers(0, classes, (draws, images)), labels)
    return torch.from_numpy(predicted), torch.from_numpy(labels)


def test_the_shares_of_classes_are_scikit_learns_recall():
    predicted, labels = answers(0)
    found = score_answers(predicted, labels, classes=5, seed=0)
    np.testing.assert_allclose(found.per_class, recall_score(labels, predicted[0], average=None), atol=1e-6)
    assert np.mean(found.per_class) == pytest.approx(balanced_accuracy_score(labels, predicted[0]), abs=1e-6)


def test_a_class_without_images_has_no_share():
    predicted, labels = answers(1)
    assert score_answers(predicted, labels, classes=7, seed=0).per_class[5:] == (None, None)


def test_the_bootstrap_stands_beside_wilsons_interval_and_depends_on_the_seed_alone():
    predicted, labels = answers(2)
    found = score_answers(predicted, labels, classes=5, seed=3)
    right = int((predicted[0] == labels).sum())
    assert found.accuracy == wilson(right, 200)
    assert found.bootstrap.value == found.accuracy.value
    assert abs(found.bootstrap.low - found.accuracy.low) < 0.02
    assert found == score_answers(predicted, labels, classes=5, seed=3)
    assert found.bootstrap != score_answers(predicted, labels, classes=5, seed=4).bootstrap


def test_several_draws_have_a_mean_and_a_spread():
    predicted, labels = answers(4, draws=6)
    found = score_answers(predicted, labels, classes=5, seed=0)
    shares = (predicted == labels).double().mean(1).numpy()
    np.testing.assert_allclose(found.draws, shares)
    assert found.accuracy.value == pytest.approx(shares.mean())
    assert found.accuracy.high - found.accuracy.value == pytest.approx(shares.std(ddof=1))
    assert found.bootstrap is None
    assert spread([0.5]).low == spread([0.5]).high == 0.5
    assert spread([1.0, 0.9]).high == 1.0


def test_many_kinds_leave_room_for_names(capsys):
    accuracy = {f"kind-{number}": wilson(5, 10) for number in range(7)}
    judged = Judged(role="model", name="timm:vit_small_patch14_dinov2", accuracy=accuracy)
    missing = Judged(role="teacher", name="teacher", not_available="It is gone.")
    print_result(
        ProbeResult(
            subjects=(judged, missing), classes=("a", "b"), train_images=10, val_images=10, train_digest="", val_digest="",
            orientation="exif", seed=0,
        )
    )  # fmt: skip
    said = capsys.readouterr().out
    assert said.count("timm:vit_smal") == 3  # of three tables
    assert all(f"kind-{number}" in said for number in range(7))
    assert " ".join(said.replace("│", " ").split()).count("It is gone.") == 1
    assert said.count("Accuracy %") == 1
    assert max(map(len, said.splitlines())) <= 80
