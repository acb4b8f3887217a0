"""Heads learn masks from tokens, linear where that is enough, UperNet where neighbours have to be looked at."""

import numpy as np
import pytest
import torch

from caev2.errors import ConfigError
from caev2.eval.segmentation.confusion import IGNORED, score_masks
from caev2.eval.segmentation.heads import UperNetHead, blocks_read, build_head
from caev2.eval.segmentation.tokens import MaskedTokens
from caev2.eval.segmentation.training import SegmentationSettings, count_classes, judge_head, train_head
from caev2.progress import Silent

PATCH_PX = 4


def patches_of_classes(images: int, *, levels: int = 1, grid: int = 6, width: int = 8, classes: int = 3, seed: int = 0):
    """Each patch of one class; its token points to it, with noise. A strip of pixels is ignored."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, classes, (images, 3, 3)).repeat(grid // 3, 1).repeat(grid // 3, 2)
    maps = 0.5 * random.normal(size=(images, levels, width, grid, grid))
    maps += 3 * np.eye(classes, width)[kinds].transpose(0, 3, 1, 2)[:, None]
    labels = kinds.repeat(PATCH_PX, 1).repeat(PATCH_PX, 2).astype(np.uint8)
    labels[:, :, 0] = IGNORED
    return MaskedTokens(maps=torch.from_numpy(maps).half(), labels=torch.from_numpy(labels))


def part(tokens: MaskedTokens, chosen: slice) -> MaskedTokens:
    return MaskedTokens(maps=tokens.maps[chosen], labels=tokens.labels[chosen])


def train_and_score(tokens: MaskedTokens, settings: SegmentationSettings, split: int, seed: int = 0):
    options = {"classes": count_classes(tokens), "device": "cpu"}
    head = train_head(part(tokens, slice(split)), settings=settings, seed=seed, progress=Silent(), **options)
    return score_masks(judge_head(head, part(tokens, slice(split, None)), batch_size=5, **options), seed=0)


@pytest.mark.parametrize(("head", "levels"), [("linear", 1), ("upernet", 4)])
def test_a_head_learns_what_tokens_say(head, levels):
    tokens = patches_of_classes(48, levels=levels)
    settings = SegmentationSettings(
        head=head, epochs=6, batch_size=8, lr=0.02 if head == "linear" else 0.005, channels=12
    )
    found = train_and_score(tokens, settings, 36)
    assert count_classes(tokens) == 3
    assert found.mean_iou.value > 0.75  # borders between patches are smoothed
    assert found.pixel_accuracy > 0.85


def test_tokens_that_know_nothing_are_at_chance():
    tokens = patches_of_classes(40)
    random = torch.Generator().manual_seed(0)
    nothing = MaskedTokens(maps=torch.randn(tokens.maps.shape, generator=random).half(), labels=tokens.labels)
    found = train_and_score(nothing, SegmentationSettings(epochs=3, batch_size=8), 28)
    assert found.pixel_accuracy < 0.45


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator():
    tokens = patches_of_classes(8, levels=4)
    settings = SegmentationSettings(head="upernet", epochs=1, batch_size=4, channels=6)
    weights = []
    for state in (1, 2):
        torch.manual_seed(state)
        head = train_head(tokens, classes=3, settings=settings, seed=5, device="cpu", progress=Silent())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in head.parameters()]))
    assert torch.equal(*weights)


def test_images_without_a_pixel_that_counts_do_no_harm():
    tokens = patches_of_classes(8)
    tokens.labels[:4] = IGNORED
    head = train_head(
        tokens,
        classes=3,
        settings=SegmentationSettings(epochs=2, batch_size=2),
        seed=0,
        device="cpu",
        progress=Silent(),
    )
    assert all(torch.isfinite(parameter).all() for parameter in head.parameters())


def test_upernet_sees_four_resolutions_and_its_auxiliary_head_only_while_it_learns():
    head = UperNetHead(8, 5, 6)
    maps = torch.randn(2, 4, 8, 6, 6)
    shapes = [tuple(make(maps[:, level]).shape[2:]) for level, make in enumerate(head.pyramid)]
    assert shapes == [(24, 24), (12, 12), (6, 6), (3, 3)]
    scores, auxiliary = head(maps)
    assert (scores.shape, auxiliary.shape) == ((2, 5, 24, 24), (2, 5, 6, 6))
    (scores.sum() + auxiliary.sum()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert head.eval()(maps)[1] is None


def test_upernet_reads_the_published_blocks():
    assert blocks_read("upernet", 12) == (4, 6, 8, 12)
    assert blocks_read("upernet", 24) == (8, 12, 16, 24)
    assert blocks_read("upernet", 4) == (1, 2, 3, 4)
    assert blocks_read("upernet", 1) == (1, 1, 1, 1)
    assert blocks_read("linear", 12) == ()


def test_upernet_has_as_many_parameters_as_its_layers_say():
    """On tokens of ViT-B, with 768 channels and 150 classes, counted by hand."""
    head = build_head("upernet", width=768, classes=150, channels=None, seed=0)
    finer, norm = 768 * 768 * 4 + 768, 2 * 768
    pyramid = 3 * finer + norm
    pooling = 4 * (768 * 768 + norm) + (768 * 5) * 768 * 9 + norm
    top_down = 3 * (768 * 768 + norm) + 3 * (768 * 768 * 9 + norm)
    fused = 4 * 768 * 768 * 9 + norm + 768 * 150 + 150
    auxiliary = 768 * 256 * 9 + 2 * 256 + 256 * 150 + 150
    total = pyramid + pooling + top_down + fused + auxiliary
    assert sum(parameter.numel() for parameter in head.parameters()) == total


def test_settings_that_cannot_be_are_refused():
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"channels": 0}):
        with pytest.raises(ConfigError, match="at least 1 epoch"):
            SegmentationSettings(**wrong)
