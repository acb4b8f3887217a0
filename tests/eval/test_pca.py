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


def test_who_is_not_fitted_on_changes_nobodys_colours():
    pair = {"teacher": latents(0), "student": latents(1)}
    alone = joint_rgb(pair)
    noise = torch.randn(2, 4, 4, 16, generator=torch.Generator().manual_seed(9))
    with_noise = joint_rgb({**pair, "noise": noise}, fitted_on=("teacher", "student"))
    for name, colours in alone.items():
        assert np.array_equal(with_noise[name], colours)


def test_latents_that_tell_no_patches_apart_have_one_colour():
    flat = latents(2)[:1, :1, :1].expand(2, 4, 4, 16) + 1e-3 * latents(3)
    colours = joint_rgb({"teacher": latents(0), "student": latents(1), "flat": flat}, fitted_on=("teacher", "student"))
    assert np.ptp(colours["flat"].reshape(-1, 3).astype(int), axis=0).max() <= 3
    assert np.ptp(colours["student"].reshape(-1, 3).astype(int), axis=0).min() > 100
