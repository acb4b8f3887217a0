"""Colours of patches: one basis, whatever the signs and lengths."""

import numpy as np
import torch

from caev2.eval.pca import joint_rgb


def latents(seed: int) -> torch.Tensor:
    """Three strong directions among sixteen."""
    generator = torch.Generator().manual_seed(seed)
    strong = torch.randn(2, 4, 4, 3, generator=generator) * torch.tensor([5.0, 3.0, 2.0])
    return torch.cat([strong, 0.1 * torch.randn(2, 4, 4, 13, generator=generator)], -1)


def test_equal_latents_have_equal_colours_whatever_their_length():
    colours = joint_rgb({"teacher": latents(0), "student": 3 * latents(0)})
    assert colours["teacher"].shape == (2, 4, 4, 3)
    assert np.array_equal(colours["teacher"], colours["student"])
    assert np.ptp(colours["teacher"].reshape(-1, 3), axis=0).min() > 250  # every channel is used


def test_colours_do_not_depend_on_the_order_of_the_sources():
    one = joint_rgb({"a": latents(0), "b": latents(1)})
    other = joint_rgb({"b": latents(1), "a": latents(0)})
    difference = abs(one["a"].astype(int) - other["a"].astype(int))
    assert difference.max() <= 1  # sums in another order may round otherwise


def test_neighbours_in_latent_space_are_neighbours_in_colour():
    values = latents(0)
    colours = joint_rgb({"a": values, "near": values + 0.01 * latents(3)})
    far = abs(colours["a"].astype(int) - np.roll(colours["a"], 1, axis=1)).mean()
    near = abs(colours["a"].astype(int) - colours["near"].astype(int)).mean()
    assert near < 0.1 * far
