"""Random crops: the box of the published probe, by torchvision's pixels, a function of seed, epoch and image."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, resized_crop

from caev2.errors import SourceError
from caev2.eval.crops import RandomCropping, cut_randomly
from caev2.store.draws import Draws
from caev2.store.images import open_images
from tests.made_up import make_photographs


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(60, 40), (30, 90), (50, 50)], ids=str)
def test_a_crop_has_the_pixels_that_torchvision_cuts_from_the_same_box(size):
    image = noise(*size)
    for number in range(20):
        draws = Draws("test", number)
        area = image.width * image.height * draws.uniform(0.08, 1)
        aspect = math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        width = min(round(math.sqrt(area * aspect)), image.width)
        height = min(round(math.sqrt(area / aspect)), image.height)
        top, left = draws.integer(image.height - height + 1), draws.integer(image.width - width + 1)
        theirs = resized_crop(image, top, left, height, width, [32, 32], InterpolationMode.BICUBIC)
        theirs = hflip(theirs) if draws.uniform() < 0.5 else theirs
        assert np.array_equal(np.asarray(cut_randomly(image, 32, Draws("test", number))), np.asarray(theirs))


def test_half_of_the_crops_are_mirrored():
    image = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2))
    rising = [
        float(np.diff(np.asarray(cut_randomly(image, 16, Draws(number)), float)[:, :, 0]).mean()) > 0
        for number in range(400)
    ]
    assert 160 < sum(rising) < 240


def test_crops_are_other_ones_in_every_epoch_and_the_same_in_every_batch(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 4))

    def crops(epoch: int, images, seed: int = 0) -> torch.Tensor:
        cropping = RandomCropping(source=source, size_px=24, orientation="exif", seed=seed, epoch=epoch)
        return cropping.crops_of(images)

    assert torch.equal(crops(3, [2, 0])[0], crops(3, [1, 3, 2])[2])
    assert not torch.equal(crops(3, [2]), crops(4, [2]))
    assert not torch.equal(crops(3, [2]), crops(3, [2], seed=1))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 4))
    (source.root / source.paths[1]).write_bytes(b"text")
    with pytest.raises(SourceError, match="cannot be decoded"):
        RandomCropping(source=source, size_px=24, orientation="exif", seed=0, epoch=0).crops_of([0, 1])
