"""Crops that come through shared memory are those of their image, however many workers there are and whatever fails."""

import dataclasses

import numpy as np
import pytest
import torch

from caev2.errors import ConfigError, SourceError
from caev2.extract.crop_pool import prepare_in_order
from caev2.extract.prepare import Preparation
from caev2.store.images import open_images
from caev2.store.pixels.views import ViewSettings, hash_crop
from tests.made_up import make_photographs

IMAGES = 150  # more than there are places, so that each is used again and again


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = make_photographs(tmp_path_factory.mktemp("pool") / "images", IMAGES)
    for number in (0, 7, 8, 9, 149):
        next(folder.rglob(f"{number:03d}.png")).write_bytes(b"no image")
    return open_images(folder)


@pytest.mark.parametrize("views", [1, 3, 16, 20])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_image_has_its_own_crops_in_its_own_place(source, views, workers):
    preparation = Preparation(source, ViewSettings(size_px=24), range(views))
    kept = list(prepare_in_order(preparation, range(IMAGES), workers))  # all at once: a place must not be read later
    assert [image.number for image in kept] == list(range(IMAGES))
    assert sum(image.facts.reason is not None for image in kept) == 5
    for image, alone in zip(kept, prepare_in_order(preparation, range(IMAGES), 0), strict=True):
        assert torch.equal(image.crops, alone.crops)
        assert image.facts == alone.facts
        hashes = [hash_crop(np.ascontiguousarray(crop)) for crop in image.crops.numpy()]
        assert hashes == [fields["crop_hash"] for fields in image.fields]


def test_images_are_asked_for_as_they_are_used(source):
    asked = []

    def numbers():
        for number in range(IMAGES):
            asked.append(number)
            yield number

    prepared = prepare_in_order(Preparation(source, ViewSettings(size_px=24), range(16)), numbers(), 2)
    next(prepared)
    assert len(asked) <= 2 * 8 + 2
    prepared.close()


def test_a_file_that_cannot_be_read_is_told_at_its_place(source, tmp_path):
    folder = make_photographs(tmp_path / "images", 20)
    there = open_images(folder)
    next(folder.rglob("010.png")).unlink()
    preparation = Preparation(there, dataclasses.replace(ViewSettings(), size_px=24), range(16))
    seen = []

    def look() -> None:
        for image in prepare_in_order(preparation, range(20), 2):
            seen.append(there.keys[image.number])

    with pytest.raises(SourceError, match=r"010\.png"):
        look()
    assert seen == [key for key in there.keys[:20] if key < "class-0/010"]


def test_little_shared_memory_shortens_the_way_ahead_and_too_little_is_told(source, monkeypatch):
    preparation = Preparation(source, ViewSettings(size_px=24), range(16))
    message_bytes = 16 * 3 * 24**2
    wanted = [fields.facts for fields in prepare_in_order(preparation, range(30), 2)]
    monkeypatch.setattr("caev2.extract.crop_pool._free_bytes", lambda: 2 * 4 * message_bytes)
    assert [fields.facts for fields in prepare_in_order(preparation, range(30), 2)] == wanted
    monkeypatch.setattr("caev2.extract.crop_pool._free_bytes", lambda: 2 * 3 * message_bytes)
    with pytest.raises(ConfigError, match=r"2 workers need .* MB of shared memory, .* --set workers=1"):
        next(prepare_in_order(preparation, range(30), 2))
