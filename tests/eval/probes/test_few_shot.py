"""Ridge regression against scikit-learn, and few-shot probes that draw their images by a seed."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifierCV

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.eval.probes.few_shot import draw_shots, few_shot_predict
from caev2.eval.probes.ridge import fit_ridge

ALPHAS = (0.01, 0.3, 10.0, 300.0)


def clouds(seed: int, *, images: int, width: int, noise: float = 0.6, classes: int = 4):
    draws = np.random.Generator(np.random.Philox(seed))
    labels = draws.permutation(np.arange(images) % classes)
    features = 3 + np.eye(classes, width)[labels] + noise * draws.normal(size=(images, width))
    return torch.tensor(features), torch.from_numpy(labels)


@pytest.mark.parametrize(("images", "width"), [(200, 12), (40, 90)], ids=["tall", "wide"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_head_equals_scikit_learns_ridge(images, width, alpha):
    features, labels = clouds(images, images=images, width=width)
    head = fit_ridge(features, labels, classes=4, penalties=(alpha,), relative=False)
    oracle = Ridge(alpha=alpha).fit(features.numpy(), 2 * np.eye(4)[labels.numpy()] - 1)
    np.testing.assert_allclose(head.weight.numpy(), oracle.coef_, atol=1e-9)
    np.testing.assert_allclose(head.bias.numpy(), oracle.intercept_, atol=1e-9)


@pytest.mark.parametrize(("images", "width"), [(200, 12), (40, 90)], ids=["tall", "wide"])
@pytest.mark.parametrize("noise", [0.1, 0.6, 3.0])
def test_the_penalty_and_the_answers_are_those_of_scikit_learns_leave_one_out(images, width, noise):
    features, labels = clouds(images + 1, images=2 * images, width=width, noise=noise)
    train, test = features[:images], features[images:]
    head = fit_ridge(train, labels[:images], classes=4, penalties=ALPHAS, relative=False)
    oracle = RidgeClassifierCV(alphas=ALPHAS).fit(train.numpy(), labels[:images].numpy())
    assert head.penalty == oracle.alpha_
    assert head.left_out_error == pytest.approx(-oracle.best_score_, rel=1e-9)
    np.testing.assert_array_equal(head.scores(test).argmax(1).numpy(), oracle.predict(test.numpy()))


def test_the_scale_of_the_features_does_not_matter():
    features, labels = clouds(5, images=60, width=20)
    one, other = (fit_ridge(scale * features, labels, classes=4) for scale in (1.0, 64.0))
    assert torch.allclose(one.scores(features), other.scores(64 * features))
    assert other.penalty == pytest.approx(64**2 * one.penalty)


def test_every_class_has_its_shots_and_fewer_shots_are_part_of_more():
    labels = torch.arange(90) % 3
    few, more = (list(draw_shots(labels, shots=shots, draws=4, seed=7)) for shots in (2, 5))
    for small, large in zip(few, more, strict=True):
        assert labels[small].bincount().tolist() == [2, 2, 2]
        assert set(small.tolist()) < set(large.tolist())
    assert len({tuple(chosen.tolist()) for chosen in few}) == 4
    again = list(draw_shots(labels, shots=2, draws=4, seed=7))
    assert all(torch.equal(one, other) for one, other in zip(few, again, strict=True))


def test_more_labelled_images_are_better_and_vary_less():
    features, labels = clouds(9, images=1200, width=24, noise=0.45)
    train, test = features[:600], features[600:]
    right = {
        shots: (
            few_shot_predict(train, labels[:600], test, classes=4, shots=shots, draws=8) == labels[600:]
        ).double().mean(1)
        for shots in (1, 10)
    }  # fmt: skip
    assert right[1].shape == (8,)
    assert right[1].mean() + 0.1 < right[10].mean()
    assert right[10].std() < right[1].std()


def test_a_class_with_too_few_images_is_refused():
    features, labels = clouds(1, images=20, width=6)
    with pytest.raises(SourceError, match=r"has 5 train images, fewer than the 6 .* Give --shots 5 or less"):
        few_shot_predict(features, labels, features, classes=4, shots=6)


def test_what_cannot_be_is_refused():
    features, labels = clouds(1, images=20, width=6)
    with pytest.raises(ConfigError, match="at least 1"):
        few_shot_predict(features, labels, features, classes=4, shots=0)
    with pytest.raises(ConfigError, match="at least 1"):
        few_shot_predict(features, labels, features, classes=4, shots=1, draws=0)
    with pytest.raises(ConfigError, match="all above 0"):
        fit_ridge(features, labels, classes=4, penalties=(0.0,))
    with pytest.raises(SourceError, match="two classes or more"):
        fit_ridge(features, torch.zeros_like(labels), classes=4)
    features[3, 2] = float("nan")
    with pytest.raises(CheckpointError, match="number 3"):
        fit_ridge(features, labels, classes=4)
