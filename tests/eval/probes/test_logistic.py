"""Heads against scikit-learn's LogisticRegression: the same objective must have the same minimiser."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from caev2.eval.probes.logistic import fit_head, spectrum


def made_up(seed: int, *, images: int, width: int, classes: int = 4, correlated: bool = False):
    """Standardised features and labels that follow them noisily."""
    draws = np.random.Generator(np.random.Philox(seed))
    features = draws.normal(size=(images, width))
    if correlated:  # as pixels are: a few directions hold nearly all variance
        features = features * np.linspace(1, 0, width) ** 12 @ draws.normal(size=(width, width))
    features = (features - features.mean(0)) / features.std(0)
    signal = features @ draws.normal(size=(width, classes)) / width**0.5
    labels = (signal + draws.gumbel(size=signal.shape)).argmax(1)
    return torch.tensor(features, dtype=torch.float32), torch.from_numpy(labels)


def objective(logits, weight, labels, weight_decay) -> float:
    """In float64, by another route than the solver's."""
    loss = torch.nn.functional.cross_entropy(logits.double(), labels)
    return float(loss + weight_decay / 2 * weight.double().square().sum())


@pytest.mark.parametrize("weight_decay", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize(
    ("images", "width", "correlated"), [(400, 10, False), (400, 60, True), (60, 200, False), (50, 1300, True)]
)
def test_the_minimiser_equals_scikit_learn(images, width, correlated, weight_decay):
    features, labels = made_up(images + width, images=images, width=width, correlated=correlated)
    head = fit_head(
        features, labels, classes=4, weight_decay=weight_decay, directions=spectrum(features), tolerance=1e-5
    )
    oracle = LogisticRegression(C=1 / (weight_decay * images), tol=1e-9, max_iter=10_000)
    oracle.fit(features.double().numpy(), labels.numpy())
    best = objective(
        features.double() @ torch.from_numpy(oracle.coef_.T) + torch.from_numpy(oracle.intercept_),
        torch.from_numpy(oracle.coef_),
        labels,
        weight_decay,
    )
    assert head.converged
    assert objective(head.logits(features), head.weight, labels, weight_decay) == pytest.approx(best, abs=1e-5)
    np.testing.assert_allclose(
        head.logits(features).softmax(1).numpy(), oracle.predict_proba(features.double().numpy()), atol=2e-3
    )


def test_correlated_features_need_few_steps():
    features, labels = made_up(0, images=500, width=1500, correlated=True)
    head = fit_head(features, labels, classes=4, weight_decay=0.1, directions=spectrum(features))
    assert head.converged
    assert head.steps <= 25


def test_a_start_changes_the_steps_and_not_the_minimiser():
    features, labels = made_up(1, images=300, width=30)
    settings = {"classes": 4, "directions": spectrum(features), "tolerance": 1e-5}
    near = fit_head(features, labels, weight_decay=0.012, **settings)
    cold = fit_head(features, labels, weight_decay=0.01, **settings)
    warm = fit_head(features, labels, weight_decay=0.01, start=near, **settings)
    assert warm.steps < cold.steps
    torch.testing.assert_close(warm.logits(features), cold.logits(features), atol=1e-3, rtol=0)


def test_starting_at_the_minimiser_takes_no_step():
    features, labels = made_up(2, images=300, width=30)
    settings = {"classes": 4, "weight_decay": 0.01, "directions": spectrum(features)}
    head = fit_head(features, labels, **settings)
    assert fit_head(features, labels, start=head, **settings).steps == 0


def test_a_head_that_may_not_converge_says_so():
    features, labels = made_up(3, images=300, width=30)
    head = fit_head(features, labels, classes=4, weight_decay=1e-3, directions=spectrum(features), max_steps=1)
    assert (head.converged, head.steps) == (False, 1)


def test_features_that_say_nothing_leave_the_shares_of_the_classes():
    labels = torch.tensor([0] * 30 + [1] * 60 + [2] * 10)
    features = torch.zeros(100, 7)
    head = fit_head(features, labels, classes=3, weight_decay=0.1, directions=spectrum(features), tolerance=1e-5)
    assert torch.equal(head.weight, torch.zeros(3, 7))
    torch.testing.assert_close(head.logits(features[:1]).softmax(1), torch.tensor([[0.3, 0.6, 0.1]]), atol=1e-4, rtol=0)


def test_a_class_without_images_is_never_predicted():
    features, labels = made_up(4, images=300, width=30, classes=3)
    head = fit_head(features, labels, classes=6, weight_decay=0.01, directions=spectrum(features))
    assert head.converged
    assert head.logits(features).argmax(1).max() < 3


def test_the_approximate_spectrum_finds_the_leading_variances():
    features, _ = made_up(5, images=300, width=1300, correlated=True)
    exact = torch.linalg.eigvalsh((features @ features.T / 300).double()).flip(0)
    found = spectrum(features)
    torch.testing.assert_close(found.variances[:20].double(), exact[:20], rtol=1e-3, atol=0)
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(len(found.variances)), atol=1e-4, rtol=0)
