"""Counts and mIoU against scikit-learn's confusion matrix."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from caev2.errors import SourceError
from caev2.eval.segmentation.confusion import IGNORED, count_confusions, score_masks


def masks(seed: int, *, images: int = 6, side: int = 9, classes: int = 5):
    """Half of the answers right; a tenth of the pixels ignored; the last class neither there nor said to be."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes - 1, (images, side, side))
    predicted = np.where(random.random(truth.shape) < 0.5, truth, random.integers(0, classes - 1, truth.shape))
    truth = np.where(random.random(truth.shape) < 0.1, IGNORED, truth)
    return torch.from_numpy(truth), torch.from_numpy(predicted)


@pytest.mark.parametrize("seed", [0, 1])
def test_confusions_of_each_image_are_scikit_learns(seed):
    truth, predicted = masks(seed)
    found = count_confusions(truth, predicted, 5)
    for image in range(len(truth)):
        kept = truth[image] != IGNORED
        theirs = confusion_matrix(truth[image][kept], predicted[image][kept], labels=range(5))
        np.testing.assert_array_equal(found[image].numpy(), theirs)


def test_numbers_are_scikit_learns_over_all_pixels_that_count():
    truth, predicted = masks(2)
    found = score_masks(count_confusions(truth, predicted, 5), seed=0)
    kept = truth != IGNORED
    pixels = truth[kept].numpy(), predicted[kept].numpy()
    matrix = confusion_matrix(*pixels, labels=range(4))
    iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    np.testing.assert_allclose(found.iou[:4], iou, atol=1e-6)
    np.testing.assert_allclose(found.iou[:4], jaccard_score(*pixels, average=None), atol=1e-6)
    assert found.iou[4] is None
    assert found.mean_iou.value == pytest.approx(iou.mean())
    assert found.pixel_accuracy == pytest.approx(accuracy_score(*pixels))
    assert found.class_accuracy == pytest.approx(balanced_accuracy_score(*pixels))


def test_a_class_that_is_only_said_to_be_there_counts_as_missed():
    truth, predicted = torch.zeros(1, 2, 2, dtype=torch.int64), torch.tensor([[[0, 0], [0, 1]]])
    found = score_masks(count_confusions(truth, predicted, 3), seed=0)
    assert found.iou == (0.75, 0.0, None)
    assert found.mean_iou.value == 0.375
    assert found.class_accuracy == 0.75


def test_the_interval_holds_the_value_and_follows_the_seed():
    counts = count_confusions(*masks(3, images=40), 5)
    one, again, other = (score_masks(counts, seed=seed, resamples=400).mean_iou for seed in (0, 0, 1))
    assert one == again
    assert one != other
    assert one.low < one.value < one.high
    assert one.high - one.low < 0.1
    alike = count_confusions(*(mask[:1].expand(7, 9, 9) for mask in masks(4)), 5)
    fixed = score_masks(alike, seed=0, resamples=50).mean_iou
    assert fixed.low == pytest.approx(fixed.value) == pytest.approx(fixed.high)


def test_masks_without_a_pixel_that_counts_are_refused():
    truth = torch.full((2, 3, 3), IGNORED)
    with pytest.raises(SourceError, match="Every pixel of the val masks is ignored"):
        score_masks(count_confusions(truth, torch.zeros_like(truth), 2), seed=0)
