"""Effective rank, and what is refused because it cannot mean anything."""

import numpy as np
import pytest
import torch

from caev2.errors import CheckpointError
from caev2.eval.checks import check_informative, effective_rank


def spread_over(directions: int, *, images: int = 400, width: int = 24) -> torch.Tensor:
    """Features of equal variance in some directions, around a far mean."""
    random = np.random.default_rng(directions)
    basis = np.linalg.qr(random.normal(size=(width, width)))[0][:directions]
    return torch.tensor(7 + random.normal(size=(images, directions)) @ basis, dtype=torch.float32)


@pytest.mark.parametrize("directions", [1, 2, 5, 24])
def test_the_effective_rank_is_the_number_of_equal_directions(directions):
    found = effective_rank(spread_over(directions))
    assert 0.97 * directions <= found <= directions * (1 + 1e-3)


def test_the_effective_rank_is_the_entropy_of_the_singular_values():
    features = torch.randn(50, 80, generator=torch.Generator().manual_seed(0)) ** 3
    singular = np.linalg.svd((features - features.mean(0)).double().numpy(), compute_uv=False)
    share = singular[:-1] / singular[:-1].sum()  # the last is the mean that was taken off
    assert effective_rank(features) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_features_that_are_all_the_same_have_no_rank():
    assert effective_rank(torch.full((40, 6), 3.7)) == 0.0


def noise(images: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 255, (images, 16, 16, 3), dtype=np.uint8))


def test_features_on_a_line_are_refused_where_the_images_are_not():
    line = torch.linspace(0, 1, 64)[:, None] * torch.ones(8) + 3
    with pytest.raises(CheckpointError, match=r"collapsed onto a line: .* first 64 images .* rank is 1.00"):
        check_informative({"class": line, "mean": -line}, noise(), "student")
    check_informative({"class": line, "mean": spread_over(3, images=64)}, noise(), "student")
    brighter = torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1).expand(64, 16, 16, 3)
    check_informative({"class": line}, brighter, "student")
    check_informative({"class": line[:20]}, noise(20), "student")
