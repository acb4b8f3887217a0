import pytest
import torch
from torchvision.transforms import functional as torchvision

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.teacher import check_images, check_taps, default_precision, normalise

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_pixels_are_normalised_bit_for_bit_as_torchvision_does():
    values = torch.arange(256, dtype=torch.uint8)
    images = torch.stack([values, values.flip(0), values.roll(7)], dim=-1).reshape(2, 8, 16, 3)
    scaled = torch.stack([torchvision.to_tensor(image.numpy()) for image in images])
    assert torch.equal(normalise(images, MEAN, STD), torchvision.normalize(scaled, MEAN, STD))


def test_normalising_leaves_the_crops_alone():
    images = torch.full((1, 4, 4, 3), 200, dtype=torch.uint8)
    normalise(images, MEAN, STD)
    assert torch.equal(images, torch.full((1, 4, 4, 3), 200, dtype=torch.uint8))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 64, 64, 3),
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(2, 64, 32, 3, dtype=torch.uint8),
        torch.zeros(64, 64, 3, dtype=torch.uint8),
    ],
    ids=["float", "channels first", "not square", "one image"],
)
def test_other_images_than_the_teacher_takes_are_refused(images):
    with pytest.raises(TeacherError, match=r"uint8 crops of shape \(images, 64, 64, 3\), but got"):
        check_images(images, 64)


def test_a_tap_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no tap called 'block:13'.*Did you mean .*'block:1[12]'"):
        check_taps(["projected", "block:13"], {"projected": 512, "block:11": 768, "block:12": 768})


def test_precision_is_the_published_one_on_a_gpu_and_full_elsewhere():
    assert default_precision("cuda:1") == "fp16"
    assert default_precision("cpu") == "fp32"
