"""Augmented images and mixed batches are functions of a seed and a number, whoever makes them and in what order."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import ConfigError, SourceError
from caev2.eval.finetuning.augmentation import Mixer, check_groups, drawing_from, train_transform
from caev2.eval.finetuning.batches import PIECE_IMAGES, Augmenting, TunedBatches, order_images
from caev2.eval.finetuning.recipes import AugmentationSettings, MixSettings
from caev2.pretrain.learning.step import IMAGENET_MEAN, IMAGENET_STD
from caev2.pretrain.together.ranks import Ranks
from caev2.store.images import open_images
from tests.made_up import make_photographs

STATISTICS = IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_images(make_photographs(tmp_path_factory.mktemp("images"), 2 * PIECE_IMAGES + 6))


def batches(source, ranks=None, batch_size=70, rates=()):
    augmenting = Augmenting(
        source=source,
        settings=AugmentationSettings(),
        size_px=32,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=3,
        orientation="exif",
    )
    order = order_images(len(source), batch_size=batch_size, epochs=4, seed=3)
    return TunedBatches(augmenting=augmenting, order=order, rates=rates, ranks=ranks or Ranks())


def load(some, steps, workers=0):
    return list(some.load(steps, workers=workers, device="cpu"))


def generators():
    return random.random(), np.random.rand(), float(torch.rand(()))


def test_the_global_generators_are_left_as_they_were():
    drawn = []
    for _ in range(2):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if drawn:
            with drawing_from("a", 1):
                generators()
        drawn.append(generators())
    assert drawn[0] == drawn[1]


def test_draws_are_a_function_of_the_parts():
    drawn = []
    for parts in (("a", 1), ("a", 1), ("a", 2)):
        with drawing_from(*parts):
            drawn.append(generators())
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_a_batch_is_the_same_whoever_makes_it_and_every_epoch_another(source):
    alone = load(batches(source), range(4))
    for again in (load(batches(source), range(1, 4)), load(batches(source), range(1, 4), workers=2)):
        for one, other in zip(alone[1:], again, strict=True):
            assert one.step == other.step
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
    assert sorted(alone[0].labels.tolist()) == sorted(source.labels)
    assert not torch.equal(alone[0].images, alone[1].images)
    order = batches(source).rows_of(0).argsort(), batches(source).rows_of(1).argsort()
    assert not torch.equal(alone[0].images[order[0]], alone[1].images[order[1]])  # of the same images


def test_ranks_take_the_parts_of_the_very_batch(source):
    whole = load(batches(source, rates=(0.0, 0.5)), range(2))
    parts = [load(batches(source, Ranks(index, 2), rates=(0.0, 0.5)), range(2)) for index in range(2)]
    for step in range(2):
        joined = [torch.cat([getattr(part[step], name) for part in parts]) for name in ("images", "labels")]
        assert torch.equal(joined[0], whole[step].images)
        assert torch.equal(joined[1], whole[step].labels)
        assert torch.equal(torch.cat([part[step].keep for part in parts], dim=1), whole[step].keep)


def test_an_image_that_cannot_be_decoded_stops_the_training(tmp_path):
    folder = make_photographs(tmp_path, 8)
    (folder / "class-1" / "003.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"003\.png cannot be decoded"):
        load(batches(open_images(folder), batch_size=8), range(1))


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match="There are 5 training images, fewer than one batch of 8"):
        order_images(5, batch_size=8, epochs=1, seed=0)


def steps_of(settings: AugmentationSettings) -> list[str]:
    return [type(step).__name__ for step in train_transform(settings, 32, *STATISTICS).transforms]


def test_colours_are_jittered_where_nothing_else_is_done_to_them():
    published = AugmentationSettings()
    assert "ColorJitter" not in steps_of(published)
    assert steps_of(published)[-1] == "RandomErasing"
    assert "RandAugment" in steps_of(published)
    plain = AugmentationSettings(auto_augment=None, color_jitter=0.3, erase=0.0, flip=0.0)
    assert steps_of(plain) == ["RandomResizedCropAndInterpolation", "ColorJitter", "MaybeToTensor", "Normalize"]


def test_randaugment_has_the_published_strength():
    (rand,) = (
        step for step in train_transform(AugmentationSettings(), 32, *STATISTICS).transforms
        if type(step).__name__ == "RandAugment"
    )  # fmt: skip
    assert rand.num_layers == 2
    assert {(op.magnitude, op.magnitude_std) for op in rand.ops} == {(9, 0.5)}


def test_an_augmentation_that_timm_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"auto_augment cannot be 'strong'"):
        train_transform(AugmentationSettings(auto_augment="strong"), 32, *STATISTICS)


def test_without_augmentation_an_image_is_what_it_was():
    settings = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, auto_augment=None, erase=0.0)
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    made = train_transform(settings, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(Image.fromarray(pixels))
    torch.testing.assert_close(made, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def pixels(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one grey each, whose level is their number."""
    return torch.arange(count).float()[:, None, None, None].expand(-1, 3, 16, 16).clone(), torch.arange(count) % 5


def mixed(settings: MixSettings, count: int, *, batch_size: int, step: int = 0, first_image: int = 0):
    images, labels = pixels(batch_size)
    part = slice(first_image, first_image + count)
    mixer = Mixer(settings, classes=5, batch_size=batch_size, seed=7)
    return mixer(images[part], labels[part], step=step, first_image=first_image)


def test_two_images_and_their_labels_are_mixed_in_the_same_shares():
    images, targets = mixed(MixSettings(mixup=0.8, cutmix=0.0, smoothing=0.0), 8, batch_size=8)
    share = float((images[0, 0, 0, 0] - 7) / (0 - 7))  # of grey 0, met by grey 7
    assert 0 < share < 1
    for number in range(8):
        expected = share * number + (1 - share) * (7 - number)
        torch.testing.assert_close(images[number], torch.full((3, 16, 16), expected))
        soft = share * torch.eye(5)[number % 5] + (1 - share) * torch.eye(5)[(7 - number) % 5]
        torch.testing.assert_close(targets[number], soft, atol=1e-6, rtol=0)


def test_a_rectangle_of_another_image_has_its_area_in_the_label():
    images, targets = mixed(MixSettings(mixup=0.0, cutmix=1.0, smoothing=0.0), 8, batch_size=8, step=3)
    taken = float((images[0, 0] == 7).float().mean())
    assert 0 < taken < 1
    torch.testing.assert_close(targets[0, 2], torch.tensor(taken))  # 7 has class 2
    torch.testing.assert_close(targets[0, 0], torch.tensor(1 - taken))


@pytest.mark.parametrize("settings", [MixSettings(), MixSettings(mixup=0.0, cutmix=0.0), MixSettings(cutmix=0.0)])
def test_shares_of_classes_add_up_to_one(settings):
    _, targets = mixed(settings, 8, batch_size=8)
    torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_without_mixing_labels_are_smoothed_and_images_stay():
    images, targets = mixed(MixSettings(mixup=0.0, cutmix=0.0, smoothing=0.1), 8, batch_size=8)
    assert torch.equal(images, pixels(8)[0])
    torch.testing.assert_close(targets[1], torch.tensor([0.02, 0.92, 0.02, 0.02, 0.02]))


def test_groups_are_mixed_apart_and_ranks_mix_as_one_process_does():
    settings = MixSettings(images=4)
    images, targets = mixed(settings, 16, batch_size=16, step=5)
    parts = [mixed(settings, 8, batch_size=16, step=5, first_image=first) for first in (0, 8)]
    assert torch.equal(images, torch.cat([part[0] for part in parts]))
    assert torch.equal(targets, torch.cat([part[1] for part in parts]))
    other, _ = mixed(settings, 16, batch_size=16, step=6)
    assert not torch.equal(images, other)
    assert float(images[:4].max()) <= 3  # no pixel of another group


def test_ranks_that_would_cut_a_group_are_refused():
    check_groups(MixSettings(), 1024, 8)
    with pytest.raises(ConfigError, match=r"The 64 images .* groups of 128 .* --set mix.images"):
        check_groups(MixSettings(), 1024, 16)
    with pytest.raises(ConfigError, match="groups of 7 that are mixed in pairs"):
        check_groups(MixSettings(), 7, 1)
    with pytest.raises(ConfigError, match="not cut into 3 equal ranks"):
        check_groups(MixSettings(), 64, 3)
    check_groups(MixSettings(mixup=0.0, cutmix=0.0), 7, 1)
