"""Patch tokens of masked images: rows and columns as in the image, kept for the same question only."""

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.features import Reading, Subject
from caev2.eval.segmentation.masks import open_masked_images
from caev2.eval.segmentation.tokens import read_tokens
from caev2.eval.subjects import pixel_subject
from caev2.eval.trunk import Trunk
from caev2.progress import Silent

SIZE_PX, PATCH_PX = 12, 4


@pytest.fixture
def source(tmp_path):
    """Five images whose mask is a quarter of their red."""
    random = np.random.default_rng(0)
    for kind in ("images", "annotations"):
        (tmp_path / kind / "training").mkdir(parents=True)
    for number in range(5):
        pixels = random.integers(0, 200, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "training" / f"{number}.png")
        Image.fromarray(pixels[:, :, 0] // 4).save(tmp_path / "annotations" / "training" / f"{number}.png")
    return open_masked_images(tmp_path, "train")


class PatchMeans:
    """Tokens that are mean colours of patches, times the number of the block; counts how many images it saw."""

    def __init__(self, patch_px: int = PATCH_PX):
        self.images, self.patch_px = 0, patch_px

    def __call__(self, crops, numbers):
        self.images += len(crops)
        means = crops.float().unfold(1, self.patch_px, self.patch_px).unfold(2, self.patch_px, self.patch_px)
        patches = means.mean((-1, -2)).flatten(1, 2)
        tokens = torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)
        return tokens, [number * tokens for number in numbers]

    def subject(self, identity: str | None = None) -> Subject:
        trunk = Trunk(depth=4, read=self)
        return Subject(name="means", size_px=SIZE_PX, pool=trunk.pool, trunk=trunk, identity=identity)


def ask(subject, source, *, blocks=(), ignore=255, **more):
    reading = Reading(**{"resize_px": SIZE_PX, "device": "cpu", "batch": 2, "workers": 0, **more})
    return read_tokens(subject, source, reading, blocks=blocks, ignore=ignore, progress=Silent())


def test_rows_and_columns_of_maps_are_those_of_the_image(source):
    found = ask(PatchMeans().subject(), source)
    assert found.maps.shape == (5, 1, 3, 3, 3)
    red = found.labels.unfold(1, PATCH_PX, PATCH_PX).unfold(2, PATCH_PX, PATCH_PX).float().mean((-1, -2))
    torch.testing.assert_close(found.maps[:, 0, 0].float() / 4, red, atol=0.6, rtol=0)  # quarters are rounded down
    assert red.std() > 1
    assert (red - red.mT).abs().max() > 2  # rows that were taken for columns would be seen


def test_levels_are_in_the_order_of_their_blocks_and_may_be_one_block_twice(source):
    found = ask(PatchMeans().subject(), source, blocks=(2, 2, 4))
    assert found.maps.shape == (5, 3, 3, 3, 3)
    assert torch.equal(found.maps[:, 0], found.maps[:, 1])
    # as a final norm leaves them: block 4 is twice block 2, which a norm does not see
    torch.testing.assert_close(found.maps[:, 2], found.maps[:, 0], atol=2e-3, rtol=0)
    assert found.maps.float().mean(2).abs().max() < 2e-3


def test_tokens_are_kept_for_the_same_question_only(source, tmp_path):
    means = PatchMeans()
    first = ask(means.subject("one"), source, cache=tmp_path / "kept")
    assert means.images == 5
    again = ask(means.subject("one"), source, cache=tmp_path / "kept")
    assert means.images == 5
    assert torch.equal(first.maps, again.maps)
    assert torch.equal(first.labels, again.labels)
    for number, other in enumerate(({"ignore": 0}, {"blocks": (1,)}, {"resize_px": 14}), start=2):
        ask(means.subject("one"), source, cache=tmp_path / "kept", **other)
        assert means.images == 5 * number
    ask(means.subject("two"), source, cache=tmp_path / "kept")
    assert means.images == 25


def test_a_mask_that_was_changed_is_read_again(source, tmp_path):
    before = ask(PatchMeans().subject("one"), source, cache=tmp_path / "kept")
    path = source.masks.root / source.masks.paths[0]
    Image.fromarray(np.full((SIZE_PX, SIZE_PX), 7, dtype=np.uint8)).save(path)
    changed = open_masked_images(tmp_path, "train")
    after = ask(PatchMeans().subject("one"), changed, cache=tmp_path / "kept")
    assert (after.labels[0] == 7).all()
    assert torch.equal(after.labels[1:], before.labels[1:])


def test_what_has_no_map_is_refused(source):
    with pytest.raises(ConfigError, match="no tokens to look at"):
        ask(pixel_subject(SIZE_PX), source)
    trunk = Trunk(depth=4, read=lambda crops, numbers: (PatchMeans()(crops, numbers)[0][:, :-1], []))
    odd = Subject(name="odd", size_px=SIZE_PX, pool=trunk.pool, trunk=trunk)
    with pytest.raises(CheckpointError, match="no square"):
        ask(odd, source)
    with pytest.raises(ConfigError, match="--token-gb"):
        ask(PatchMeans().subject(), source, token_limit_bytes=100)
