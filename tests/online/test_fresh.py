"""New views every epoch with a live teacher: drawn as a store's, and a function of the step."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.extract.run import extract
from caev2.online.fresh import Fresh
from caev2.pretrain.identity import read_identity
from caev2.pretrain.learning.lesson import Lesson, store_lesson
from caev2.pretrain.run import pretrain
from caev2.pretrain.together.ranks import ALONE, Ranks
from caev2.progress import Silent
from caev2.recipe import override, to_mapping
from caev2.store.images import open_images
from caev2.store.reader import Store
from tests.made_up import EXTRACT, PRETRAIN, PatchMeans, make_photographs
from tests.online.test_replay import LargeTeacher
from tests.online.training import fresh, losses_of, relative_difference
from tests.pretrain.training import STEPS, assert_equal_runs, last_weights

ROUNDING = 1e-3
"""Relative difference of losses between latents in float32 and in float16, over the nine steps of a run."""


def lesson_of(data, recipe=PRETRAIN, *, teacher=None, views=EXTRACT, ranks=ALONE, left_out=()) -> Lesson:
    made = Fresh(images=data / "images", recipe=recipe, views=views, teacher=teacher or PatchMeans(), left_out=left_out)
    return made(device="cpu", ranks=ranks, progress=Silent())


def test_every_epoch_has_new_views_of_every_image(data):
    batches = lesson_of(data).batches
    order = batches.order
    assert sorted({order.view_of(step) for step in range(STEPS)}) == [0, 1, 2]
    pixels = {}
    for batch in map(batches.batch_of, range(STEPS)):
        for row, crop in zip(batch.rows.tolist(), batch.crops, strict=True):
            pixels.setdefault(row, []).append(crop.clone())
    seen_thrice = [crops for crops in pixels.values() if len(crops) == 3]
    assert len(seen_thrice) > 10
    assert all(len({crop.numpy().tobytes() for crop in crops}) == 3 for crops in seen_thrice)


@pytest.mark.parametrize("views", [None, 2])
def test_batches_are_those_of_a_store_with_as_many_views(data, tmp_path, views):
    recipe = dataclasses.replace(PRETRAIN, views=views, student_jitter=0.3)
    count = views or PRETRAIN.epochs
    extract(data / "images", tmp_path / "store", dataclasses.replace(EXTRACT, view_count=count), teacher=PatchMeans())
    stored = store_lesson(
        Store(tmp_path / "store"), recipe, images=data / "images", device="cpu", ranks=ALONE, progress=Silent()
    )
    live = lesson_of(data, recipe)
    for step in range(STEPS):
        one, other = stored.batches.batch_of(step), live.batches.batch_of(step)
        assert (one.view, one.epoch) == (other.view, other.epoch)
        for name in ("rows", "crops", "visible", "masked", "keep"):
            assert torch.equal(one.tensors()[name], other.tensors()[name]), name
        images, latents = live.inputs(other)
        assert other.targets is None
        assert latents.dtype == torch.float32
        assert torch.equal(images, stored.inputs(one)[0])
        assert torch.equal(latents.half().float(), stored.inputs(one)[1])


def test_a_run_is_that_of_a_store_with_a_view_for_every_epoch_but_for_rounding(data, tmp_path):
    extract(data / "images", tmp_path / "store", dataclasses.replace(EXTRACT, view_count=3), teacher=PatchMeans())
    pretrain(tmp_path / "store", tmp_path / "offline", PRETRAIN, images=data / "images")
    fresh(data, tmp_path / "fresh")
    assert relative_difference(tmp_path / "offline", tmp_path / "fresh").max() < ROUNDING


@pytest.mark.parametrize("settings", [[], ["from_crops=true"]])
def test_a_teacher_of_another_size_sees_what_extraction_would_show_it(data, tmp_path, settings):
    views = override(EXTRACT, ["view_count=3", *settings])
    extract(data / "images", tmp_path / "store", views, teacher=LargeTeacher())
    pretrain(tmp_path / "store", tmp_path / "offline", PRETRAIN, images=data / "images")
    fresh(data, tmp_path / "fresh", views=views, teacher=LargeTeacher())
    assert relative_difference(tmp_path / "offline", tmp_path / "fresh").max() < ROUNDING


def test_two_runs_are_equal_and_another_seed_of_the_views_is_another_run(data, tmp_path):
    fresh(data, tmp_path / "one")
    fresh(data, tmp_path / "two", override(PRETRAIN, ["workers=2"]))
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    fresh(data, tmp_path / "other", views=override(EXTRACT, ["views.seed=1"]))
    assert not np.array_equal(losses_of(tmp_path / "one"), losses_of(tmp_path / "other"))


def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path):
    fresh(data, tmp_path / "whole")
    for stop in (1, 4, 7, None):
        fresh(data, tmp_path / "parts", stop_after=stop)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_ranks_share_the_batches_of_one_process(data):
    whole = lesson_of(data).batches
    shards = [lesson_of(data, ranks=Ranks(index, 2)).batches for index in range(2)]
    for step in (0, 5):
        parts = [shard.batch_of(step) for shard in shards]
        assert torch.equal(torch.cat([part.crops for part in parts]), whole.batch_of(step).crops)
        assert torch.equal(torch.cat([part.masked for part in parts]), whole.batch_of(step).masked)


def test_a_teachers_batch_is_no_larger_than_the_students(data, tmp_path):
    calls = tmp_path / "calls"
    views = override(EXTRACT, ["teacher_batch=64"])
    fresh(data, tmp_path / "run", teacher=PatchMeans(calls), views=views, stop_after=2)
    assert calls.read_text().split() == ["6", "6"]
    assert read_identity(tmp_path / "run").source["teacher_batch"] == 6


def test_a_run_says_what_it_learnt_from(data, tmp_path):
    fresh(data, tmp_path / "run", stop_after=1)
    identity = read_identity(tmp_path / "run")
    assert (identity.online, identity.imported, identity.store_digest) == ("fresh", False, "")
    assert identity.target["teacher"]["sha256"] == "0" * 64
    assert identity.source["digest"] == open_images(data / "images").digest()
    assert identity.views == to_mapping(EXTRACT.views)
    other = override(EXTRACT, ["views.jitter=0.1"])
    with pytest.raises(CheckpointError, match=r"its views.jitter is 0.4, this command asks for 0.1"):
        fresh(data, tmp_path / "run", views=other)
    with pytest.raises(CheckpointError, match=r"its source.left_out is \[\], this command asks for \['class-0/000.png"):
        fresh(data, tmp_path / "run", left_out=("class-0/000.png",))


def test_an_image_that_cannot_be_decoded_ends_the_run_with_its_name_unless_it_is_left_out(tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    (images / "class-1" / "007.png").write_bytes(b"no image")
    with pytest.raises(
        SourceError, match=r"class-1/007.png cannot be decoded: no known image format.*--leave-out FILE"
    ):
        fresh(tmp_path, tmp_path / "run")
    left_out = ("class-1/007.png",)
    fresh(tmp_path, tmp_path / "without", left_out=left_out)
    rows = np.concatenate([lesson_of(tmp_path, left_out=left_out).batches.order.rows_of(step) for step in range(STEPS)])
    (place,) = np.flatnonzero(np.array(open_images(images).keys) == left_out[0])
    assert place not in rows
    # numbers, and with them all that is drawn for rows, are those of a store that has an invalid row there
    extract(images, tmp_path / "store", override(EXTRACT, ["view_count=3", "max_failed=0.5"]), teacher=PatchMeans())
    pretrain(tmp_path / "store", tmp_path / "offline", PRETRAIN, images=images)
    assert relative_difference(tmp_path / "offline", tmp_path / "without").max() < ROUNDING


def test_an_image_that_is_mended_lets_the_same_run_go_on(data, tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    file = images / "class-1" / "007.png"
    sound = file.read_bytes()
    file.write_bytes(sound[:60])
    every_step = override(PRETRAIN, ["checkpoint_steps=1"])
    with pytest.raises(SourceError, match="cannot be decoded: damaged"):
        fresh(tmp_path, tmp_path / "run", every_step)
    file.write_bytes(sound)
    fresh(tmp_path, tmp_path / "run", every_step)
    fresh(data, tmp_path / "undisturbed")
    for name, tensor in last_weights(tmp_path / "undisturbed").items():
        assert torch.equal(last_weights(tmp_path / "run")[name], tensor), name


def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path):
    refusals = {
        "The views are of 48 pixels, the recipe's student takes 32": {"views": override(EXTRACT, ["views.size_px=48"])},
        "takes the statistics of a store": {"recipe": override(PRETRAIN, ["loss.target_norm=whiten"])},
        "has 20 valid images, fewer than one batch of 64": {"recipe": override(PRETRAIN, ["batch_size=64"])},
        "There is no tap of patch-means called 'block:3'": {"recipe": override(PRETRAIN, ["target=block-3"])},
        "patch-means has 16 patches in an image, the recipe's student 64": {
            "recipe": override(PRETRAIN, ["model.patch_px=4"])
        },
        "'class-9/none.png', which is to be left out, is no key": {"left_out": ("class-9/none.png",)},
    }
    for said, options in refusals.items():
        with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
            fresh(data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_exif_rule_of_the_views_is_followed(tmp_path):
    place = tmp_path / "images" / "a"
    place.mkdir(parents=True)
    for number in range(6):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(
            place / f"{number}.jpg", exif=exif
        )
    turned, ignored = (
        lesson_of(tmp_path, views=override(EXTRACT, [f"views.orientation={rule}"])).batches.batch_of(0).crops
        for rule in ("exif", "ignore")
    )
    assert not torch.equal(turned, ignored)
