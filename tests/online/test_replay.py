"""A live teacher on a store's views: the same training, step by step."""

import dataclasses

import numpy as np
import pytest
import torch

from caev2.demo.scenes import write_scenes
from caev2.errors import CheckpointError, SourceError, TeacherError, TrainingDiverged
from caev2.extract.run import extract
from caev2.online.replay import Replay
from caev2.pretrain.identity import read_identity
from caev2.pretrain.learning.lesson import store_lesson
from caev2.pretrain.learning.replay import replay_step
from caev2.pretrain.recipes import DEMO
from caev2.pretrain.run import pretrain, teach
from caev2.pretrain.together.ranks import ALONE
from caev2.progress import Silent
from caev2.recipe import override
from caev2.store.pixels.crops import StoredCrops
from caev2.store.pixels.replay import ViewReplay
from caev2.store.reader import Store
from tests.made_up import EXTRACT, PRETRAIN, SIZE_PX, PatchMeans
from tests.online.training import demo_views, losses_of, relative_difference, replay
from tests.pretrain.training import assert_equal_runs, last_weights, losses, train

LEAST = 1e-6
"""Relative difference of losses that is allowed between a stored and a live teacher."""


class LargeTeacher(PatchMeans):
    """One that takes crops of twice the size, and has the student's grid at that."""

    def __init__(self):
        super().__init__()
        self.description = dataclasses.replace(self.description, image_px=2 * SIZE_PX, patch_px=16)

    def tokens(self, images, taps):
        small = images.float().unfold(1, 2, 2).unfold(2, 2, 2).mean((4, 5))
        return super().tokens(small, taps)


def test_every_step_equals_that_of_the_offline_run(data, tmp_path):
    train(data, tmp_path / "offline")
    replay(data, tmp_path / "online")
    assert relative_difference(tmp_path / "offline", tmp_path / "online").max() <= LEAST
    assert len(losses_of(tmp_path / "online")) == 9


def test_no_stored_target_is_read(data, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a stored target was read")

    monkeypatch.setattr(Store, "read_into", refuse)
    replay(data, tmp_path / "run", stop_after=2)
    assert len(losses_of(tmp_path / "run")) == 2


@pytest.mark.parametrize("codec", ["int8", "lloyd4", "pq"])
def test_targets_come_back_as_from_the_stores_codec(data, tmp_path, codec):
    store = tmp_path / "store"
    extract(data / "images", store, override(EXTRACT, [f"codec={codec}"]), teacher=PatchMeans())
    pretrain(store, tmp_path / "offline", PRETRAIN, images=data / "images")
    teach(
        Replay(store=Store(store), recipe=PRETRAIN, images=data / "images", teacher=PatchMeans()), tmp_path / "online"
    )
    assert relative_difference(tmp_path / "offline", tmp_path / "online").max() <= LEAST


def test_a_teacher_is_asked_in_the_batches_of_extraction_filled_up(data, tmp_path):
    calls = tmp_path / "calls"
    replay(data, tmp_path / "run", teacher=PatchMeans(calls), stop_after=2)
    assert calls.read_text().split() == ["4", "2", "4", "2"]  # batches of six images, teacher_batch = 4


def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path):
    replay(data, tmp_path / "whole")
    for stop in (2, 5, None):
        replay(data, tmp_path / "parts", stop_after=stop)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_parts_of_a_batch_and_workers_change_nothing_but_the_speed(data, tmp_path):
    replay(data, tmp_path / "whole")
    replay(data, tmp_path / "workers", override(PRETRAIN, ["workers=2"]))
    replay(data, tmp_path / "parts", override(PRETRAIN, ["accumulate=3"]))
    assert_equal_runs(tmp_path / "whole", tmp_path / "workers")
    np.testing.assert_allclose(losses_of(tmp_path / "whole"), losses_of(tmp_path / "parts"), rtol=1e-5)


def test_jitter_of_the_student_alone_is_not_shown_to_the_teacher(data, tmp_path):
    jittered = override(PRETRAIN, ["student_jitter=0.4"])
    train(data, tmp_path / "offline", jittered)
    replay(data, tmp_path / "online", jittered)
    assert relative_difference(tmp_path / "offline", tmp_path / "online").max() <= LEAST
    train(data, tmp_path / "plain")
    assert relative_difference(tmp_path / "offline", tmp_path / "plain").max() > LEAST


@pytest.mark.parametrize("settings", [[], ["from_crops=true"], ["crops=jpeg"], ["crops=raw", "from_crops=true"]])
def test_a_teacher_of_another_size_sees_what_it_saw(data, tmp_path, settings):
    store, teacher = tmp_path / "store", LargeTeacher()
    extract(data / "images", store, override(EXTRACT, settings), teacher=teacher)
    pretrain(store, tmp_path / "offline", PRETRAIN, images=data / "images")
    teach(Replay(store=Store(store), recipe=PRETRAIN, images=data / "images", teacher=teacher), tmp_path / "online")
    assert relative_difference(tmp_path / "offline", tmp_path / "online").max() <= LEAST


def test_kept_crops_take_no_images_unless_the_teacher_saw_boxes(data, tmp_path):
    kept, boxes = tmp_path / "kept", tmp_path / "boxes"
    extract(data / "images", kept, override(EXTRACT, ["crops=jpeg"]), teacher=PatchMeans())
    extract(data / "images", boxes, override(EXTRACT, ["crops=jpeg"]), teacher=LargeTeacher())
    said = {"device": "cpu", "ranks": ALONE, "progress": Silent()}
    lesson = Replay(store=Store(kept), recipe=PRETRAIN, teacher=PatchMeans())(**said)
    assert isinstance(lesson.batches.crops, StoredCrops)
    with pytest.raises(SourceError, match="a teacher saw their boxes at another size"):
        Replay(store=Store(boxes), recipe=PRETRAIN, teacher=LargeTeacher())(**said)
    lesson = Replay(store=Store(boxes), recipe=PRETRAIN, images=data / "images", teacher=LargeTeacher())(**said)
    assert isinstance(lesson.batches.crops.crops, ViewReplay)


def test_a_run_says_that_its_teacher_was_live_and_is_not_gone_on_with_offline(data, tmp_path):
    replay(data, tmp_path / "run", stop_after=2)
    identity = read_identity(tmp_path / "run")
    assert (identity.online, identity.target["teacher"]["sha256"]) == ("replay", "0" * 64)
    assert identity.store_digest == Store(data / "store").manifest.root_digest
    with pytest.raises(CheckpointError, match="its online is 'replay', this command asks for None"):
        train(data, tmp_path / "run")


def test_another_teacher_is_refused(data, tmp_path):
    other = PatchMeans()
    other.description = dataclasses.replace(other.description, sha256="1" * 64)
    with pytest.raises(TeacherError, match=r"made by patch-means \(sha256 000000000000.*111111111111"):
        replay(data, tmp_path / "run", teacher=other)
    lesson = Replay(store=Store(data / "store"), recipe=PRETRAIN, images=data / "images", teacher="demo")
    with pytest.raises(TeacherError, match=r"is not found: demo has other weights.*Say where its weights are"):
        teach(lesson, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_that_is_not_finite_is_kept_and_shown_again(data, tmp_path):
    hot = override(PRETRAIN, ["optimizer.lr=1e30", "optimizer.warmup_epochs=0.0", "optimizer.clip_norm=none"])
    with pytest.raises(TrainingDiverged, match="not finite in 3 steps in a row"):
        replay(data, tmp_path / "run", hot)
    (file,) = (tmp_path / "run").glob("diverged-step-*.safetensors")
    assert not replay_step(file).finite


def demo_difference(folder, *, scenes: int, steps: int, codec: str) -> np.ndarray:
    """How far losses of demo size are apart."""
    write_scenes(folder / "images", "train", scenes, 0, Silent())
    extract(folder / "images", folder / "store", demo_views(codec))
    recipe = override(DEMO, ["log_steps=1"])
    pretrain(folder / "store", folder / "offline", recipe, images=folder / "images", stop_after=steps)
    lesson = Replay(store=Store(folder / "store"), recipe=recipe, images=folder / "images")
    teach(lesson, folder / "online", stop_after=steps)
    assert last_weights(folder / "online").keys() == last_weights(folder / "offline").keys()
    assert len(losses(folder / "online")) == steps
    return relative_difference(folder / "offline", folder / "online")


def test_twenty_steps_of_the_demo_are_those_of_the_offline_run(tmp_path):
    assert demo_difference(tmp_path, scenes=192, steps=20, codec="float16").max() <= LEAST


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "steps"), [("float16", 300), ("lloyd4", 60)])
def test_up_to_three_hundred_steps_of_the_demo_are_those_of_the_offline_run(tmp_path, codec, steps):
    assert demo_difference(tmp_path, scenes=20 * steps, steps=steps, codec=codec).max() <= LEAST


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["float16", "lloyd4"])
def test_on_a_gpu_a_live_teacher_says_what_was_stored_but_for_last_bits(tmp_path, codec):
    write_scenes(tmp_path / "images", "train", 256, 0, Silent())
    extract(tmp_path / "images", tmp_path / "store", demo_views(codec), device="cuda")
    store, recipe = Store(tmp_path / "store"), override(DEMO, ["batch_size=48"])
    lesson = Replay(store=store, recipe=recipe, images=tmp_path / "images")
    live = lesson(device="cuda", ranks=ALONE, progress=Silent())
    stored = store_lesson(store, recipe, images=tmp_path / "images", device="cuda", ranks=ALONE, progress=Silent())
    for step in range(3):
        latents = live.inputs(live.batches.batch_of(step).to("cuda"))[1]
        expected = stored.inputs(stored.batches.batch_of(step).to("cuda"))[1]
        assert float(torch.nn.functional.cosine_similarity(latents, expected, dim=-1).min()) > 0.99
        assert float((latents - expected).norm() / expected.norm()) < 1e-2
