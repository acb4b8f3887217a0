"""The fast linear probe: as good as scikit-learn's best, chosen without a look at the test images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.eval.probes.linear import hold_out, linear_probe, standardise


def clouds(seed: int, *, images: int, width: int, noise: float, classes: int = 5):
    """Gaussian clouds on the corners of a simplex, and their labels."""
    draws = np.random.Generator(np.random.Philox(seed))
    labels = draws.permutation(np.arange(images) % classes)
    features = np.eye(classes, width)[labels] + noise * draws.normal(size=(images, width))
    return torch.tensor(features, dtype=torch.float32), torch.from_numpy(labels)


def share_right(predictions, labels) -> float:
    return float((predictions == labels).double().mean())


def best_of_scikit_learn(train, labels, test, test_labels) -> float:
    """The best of a grid of C, judged on the test images themselves: nothing fair can be much better."""
    scaler = StandardScaler().fit(train)
    heads = [
        LogisticRegression(C=c, max_iter=3000).fit(scaler.transform(train), labels) for c in (1e-3, 1e-2, 1e-1, 1, 10)
    ]
    return max(head.score(scaler.transform(test), test_labels) for head in heads)


@pytest.mark.parametrize(("width", "noise"), [(20, 0.05), (20, 0.5), (300, 0.3)], ids=["separable", "noisy", "wide"])
def test_the_probe_is_within_a_point_of_the_best_of_scikit_learn(width, noise):
    features, labels = clouds(width, images=3500, width=width, noise=noise)
    train, test = features[:1500], features[1500:]
    found = linear_probe({"class": train}, labels[:1500], {"class": test}, classes=5)
    best = best_of_scikit_learn(*(each.numpy() for each in (train, labels[:1500], test, labels[1500:])))
    assert found.converged
    assert share_right(found.predictions, labels[1500:]) >= best - 0.01


def test_real_digits_are_read_as_well_as_scikit_learn_reads_them():
    digits = load_digits()
    features, labels = torch.tensor(digits.data, dtype=torch.float32), torch.from_numpy(digits.target)
    found = linear_probe({"pixels": features[:1200]}, labels[:1200], {"pixels": features[1200:]}, classes=10)
    best = best_of_scikit_learn(digits.data[:1200], digits.target[:1200], digits.data[1200:], digits.target[1200:])
    assert share_right(found.predictions, labels[1200:]) >= best - 0.01


def test_the_better_pooling_is_chosen():
    good, labels = clouds(0, images=600, width=12, noise=0.4)
    bad, _ = clouds(1, images=600, width=5, noise=0.4)  # its labels are others: noise
    for order in (("good", "bad"), ("bad", "good")):
        pools = {name: {"good": good, "bad": bad}[name] for name in order}
        found = linear_probe(
            {name: pool[:400] for name, pool in pools.items()},
            labels[:400],
            {name: pool[400:] for name, pool in pools.items()},
            classes=5,
        )
        assert found.pooling == "good"
        assert {candidate.pooling for candidate in found.candidates} == {"good", "bad"}


def test_parts_side_by_side_are_chosen_where_each_alone_knows_half():
    features, labels = clouds(5, images=900, width=10, noise=0.3)
    parts = {"front": features[:, :3], "back": features[:, 3:]}
    train, test = ({name: part[chosen] for name, part in parts.items()} for chosen in (slice(600), slice(600, None)))
    poolings = {"front": ("front",), "back": ("back",), "both": ("back", "front")}
    found = linear_probe(train, labels[:600], test, classes=5, poolings=poolings)
    assert found.pooling == "both"
    assert {candidate.pooling for candidate in found.candidates} == {"front", "back", "both"}
    whole = linear_probe({"both": features[:600]}, labels[:600], {"both": features[600:]}, classes=5)
    assert (found.predictions == whole.predictions).double().mean() > 0.99


def test_the_chosen_candidate_is_the_best_on_the_held_out_images():
    features, labels = clouds(2, images=800, width=40, noise=0.6)
    found = linear_probe({"class": features[:600]}, labels[:600], {"class": features[600:]}, classes=5)
    best = max(found.candidates, key=lambda candidate: (candidate.accuracy, -candidate.loss))
    assert (found.weight_decay, found.held_out_accuracy) == (best.weight_decay, best.accuracy)
    assert found.held_out_images == 60


def test_the_test_images_play_no_part_in_the_choice():
    features, labels = clouds(3, images=700, width=20, noise=0.5)
    runs = [
        linear_probe({"class": features[:400]}, labels[:400], {"class": test}, classes=5)
        for test in (features[400:], features[400:450], -100 * features[400:])
    ]
    assert runs[0].candidates == runs[1].candidates == runs[2].candidates
    assert torch.equal(runs[0].predictions[:50], runs[1].predictions)


def test_the_same_arguments_give_the_same_bits_whatever_the_global_generator():
    features, labels = clouds(4, images=600, width=20, noise=0.5)
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        runs.append(linear_probe({"class": features[:400]}, labels[:400], {"class": features[400:]}, classes=5, seed=7))
    assert runs[0].candidates == runs[1].candidates
    assert torch.equal(runs[0].predictions, runs[1].predictions)


def test_another_seed_holds_out_other_images():
    _, labels = clouds(5, images=600, width=5, noise=0.5)
    held = [hold_out(labels, share=0.1, seed=seed)[1] for seed in (0, 0, 1)]
    assert torch.equal(held[0], held[1])
    assert not torch.equal(held[0], held[2])


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_every_class_is_split_by_the_share(labels, share, seed):
    labels = torch.tensor(labels)
    counts = labels.bincount()
    if counts.max() < 2:
        with pytest.raises(SourceError, match="at least two images"):
            hold_out(labels, share=share, seed=seed)
        return
    fit, held = hold_out(labels, share=share, seed=seed)
    assert torch.equal(torch.cat([fit, held]).sort().values, torch.arange(len(labels)))
    held_counts = labels[held].bincount(minlength=len(counts))
    for count, held_count in zip(counts.tolist(), held_counts.tolist(), strict=True):
        assert held_count == min(max(1, round(share * count)), count - 1) if count else held_count == 0


def test_standardised_features_equal_batch_norm_without_affine():
    features, _ = clouds(6, images=300, width=20, noise=2.0)
    other = 3 * features[:50] + 1
    norm = torch.nn.BatchNorm1d(20, eps=1e-6, affine=False, momentum=None)
    mean, biased = features.mean(0), features.var(0, correction=0)
    norm.running_mean, norm.running_var = mean, biased
    ours = standardise(features, other)
    for found, given_ in zip(ours, (features, other), strict=True):
        torch.testing.assert_close(found, norm.eval()(given_), atol=1e-5, rtol=1e-5)


def test_standardising_leaves_the_features_as_they_were():
    features, _ = clouds(7, images=30, width=5, noise=1.0)
    before = features.clone()
    standardise(features, features)
    assert torch.equal(features, before)


def test_constant_channels_change_nothing():
    features, labels = clouds(8, images=600, width=20, noise=0.4)
    padded = torch.cat([features, torch.full((600, 3), 1234.5)], dim=1)
    plain, with_constant = (
        linear_probe({"class": each[:400]}, labels[:400], {"class": each[400:]}, classes=5)
        for each in (features, padded)
    )
    assert share_right(plain.predictions, with_constant.predictions) > 0.99


def test_constant_features_predict_the_most_frequent_class():
    labels = torch.tensor([2] * 60 + [0] * 40)
    found = linear_probe({"class": torch.ones(100, 4)}, labels, {"class": torch.ones(5, 4)}, classes=3)
    assert found.predictions.tolist() == [2] * 5
    assert found.held_out_accuracy == 0.6


def test_shuffled_labels_are_not_learned():
    features, labels = clouds(9, images=2000, width=50, noise=0.3)
    draws = np.random.Generator(np.random.Philox(9))
    shuffled = labels[torch.from_numpy(draws.permutation(2000))]
    found = linear_probe({"class": features[:1000]}, shuffled[:1000], {"class": features[1000:]}, classes=5)
    assert abs(share_right(found.predictions, shuffled[1000:]) - 0.2) < 0.05


@pytest.mark.parametrize("side", ["train", "test"])
def test_features_that_are_not_finite_are_refused(side):
    features, labels = clouds(10, images=100, width=5, noise=0.3)
    broken = features.clone()
    broken[13, 2] = float("nan")
    pools = {"train": features, "test": features, side: broken}
    with pytest.raises(CheckpointError, match=rf"{side} \(class\) features of 1 of 100 images .* number 13"):
        linear_probe({"class": pools["train"]}, labels, {"class": pools["test"]}, classes=5)


def test_large_finite_features_are_not_taken_for_broken():
    features, labels = clouds(11, images=100, width=5, noise=0.1)
    huge = (features * 1e15).float()
    assert share_right(linear_probe({"class": huge}, labels, {"class": huge}, classes=5).predictions, labels) > 0.9


def test_a_single_class_is_refused():
    with pytest.raises(SourceError, match="All 20 train images have class 3"):
        linear_probe({"class": torch.randn(20, 4)}, torch.full((20,), 3), {"class": torch.randn(5, 4)}, classes=5)


def test_no_images_are_refused():
    with pytest.raises(SourceError, match="no train images"):
        linear_probe(
            {"class": torch.zeros(0, 4)}, torch.zeros(0, dtype=torch.int64), {"class": torch.zeros(5, 4)}, classes=5
        )


@pytest.mark.parametrize("wrong", [-1, 5])
def test_labels_outside_the_classes_are_refused(wrong):
    features, labels = clouds(12, images=100, width=5, noise=0.1)
    labels[3] = wrong
    with pytest.raises(SourceError, match="outside the 5 classes"):
        linear_probe({"class": features}, labels, {"class": features}, classes=5)


def test_different_poolings_of_train_and_test_are_refused():
    features, labels = clouds(13, images=100, width=5, noise=0.1)
    with pytest.raises(ConfigError, match=r"\['class'\].*\['mean'\]"):
        linear_probe({"class": features}, labels, {"mean": features}, classes=5)
    with pytest.raises(ConfigError, match="at least one"):
        linear_probe({}, labels, {}, classes=5)


@pytest.mark.parametrize("decays", [(), (1.0, 0.0), (-1.0,)])
def test_weight_decays_that_are_not_above_zero_are_refused(decays):
    features, labels = clouds(14, images=100, width=5, noise=0.1)
    with pytest.raises(ConfigError, match="all above 0"):
        linear_probe({"class": features}, labels, {"class": features}, classes=5, weight_decays=decays)
