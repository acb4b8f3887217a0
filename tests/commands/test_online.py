"""`caev2 pretrain --online`: what it writes, and what it refuses."""

import json
import shutil

import numpy as np
import pytest

from caev2.pretrain.identity import read_identity
from caev2.pretrain.telling.log import read_log
from tests.commands.invoking import PRETRAIN, caev2, files_of, refusal, train
from tests.commands.test_leaving import PROGRAM, start

EVERY = ("--set", "log_steps=1")


def losses(run) -> list[float]:
    return [record["loss"] for record in read_log(run) if "loss" in record]


def judged(printed: str) -> set[str]:
    return {one["role"] for one in json.loads(printed)["subjects"] if one["not_available"] is None}


def test_a_replayed_run_has_the_losses_of_the_offline_one_and_can_be_probed(made, images, tmp_path):
    live = train(made / "store", tmp_path / "live", images, "--online", "replay", *EVERY)
    for command in (train(made / "store", tmp_path / "offline", images, *EVERY), live):
        assert caev2(*command).exit_code == 0
    np.testing.assert_allclose(losses(tmp_path / "live"), losses(tmp_path / "offline"), rtol=1e-6)
    assert json.loads((tmp_path / "live" / "run.json").read_bytes())["online"] == "replay"
    done = caev2("probe", tmp_path / "live", images, "--kind", "knn", "--device", "cpu", "--quiet", "--json")
    assert done.exit_code == 0, done.output
    assert judged(done.stdout) == {"random start", "student", "teacher"}
    before = files_of(tmp_path / "live")
    assert "its online is 'replay', this command asks for None" in refusal(
        *train(made / "store", tmp_path / "live", images, *EVERY)
    )
    assert files_of(tmp_path / "live") == before


def test_a_fresh_run_needs_no_store_goes_on_and_can_be_probed(images, tmp_path):
    run = tmp_path / "fresh"
    command = ("pretrain", images, run, "--online", "fresh", *PRETRAIN, *EVERY, "--knn", images)
    done = caev2(*command)
    assert done.exit_code == 0, done.output
    assert len(losses(run)) == 4
    identity = read_identity(run)
    assert (identity.online, identity.target["teacher"]["name"]) == ("fresh", "demo")
    assert identity.views["size_px"] == 64
    assert caev2(*command).exit_code == 0  # it is at its end already
    assert len(losses(run)) == 4
    done = caev2("probe", run, images, "--kind", "knn", "--device", "cpu", "--quiet", "--json")
    assert done.exit_code == 0, done.output
    assert judged(done.stdout) == {"random start", "student", "teacher"}


def test_views_come_from_the_recipe_that_is_named(images, tmp_path):
    (tmp_path / "views.toml").write_text('base = "demo"\n[views]\njitter = 0.1\nseed = 7\n')
    views = ("--views", tmp_path / "views.toml")
    assert caev2("pretrain", images, tmp_path / "run", "--online", "fresh", *views, *PRETRAIN).exit_code == 0
    assert {name: read_identity(tmp_path / "run").views[name] for name in ("jitter", "seed")} == {
        "jitter": 0.1, "seed": 7,
    }  # fmt: skip


def test_a_damaged_image_is_named_and_can_be_left_out(images, tmp_path):
    copy = shutil.copytree(images, tmp_path / "images")
    (copy / "train" / "class-1" / "3.png").write_bytes(b"")
    (tmp_path / "damaged.txt").write_text("class-1/3.png\n")
    command = ("pretrain", copy, tmp_path / "run", "--online", "fresh", *PRETRAIN)
    assert "3.png cannot be decoded: the file is empty" in refusal(*command)
    again = ("pretrain", copy, tmp_path / "again", "--online", "fresh", *PRETRAIN)
    assert caev2(*again, "--leave-out", tmp_path / "damaged.txt").exit_code == 0
    assert read_identity(tmp_path / "again").source["left_out"] == ["class-1/3.png"]
    assert "no-such.txt cannot be read" in refusal(*again, "--leave-out", tmp_path / "no-such.txt")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--teacher", "demo"], "--teacher goes with --online replay or fresh"),
        (["--online", "replay", "--views", "demo"], "--views goes with --online fresh"),
        (["--leave-out", "list.txt"], "--leave-out goes with --online fresh"),
        (["--online", "replay", "--dry-run"], "--dry-run tells what training from a store takes"),
        (["--online", "replay", "--set", "target=other"], "has no target called 'other'"),
        (["--online", "offline"], "'offline' is not one of 'replay', 'fresh'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(made, images, tmp_path, options, said):
    before = set(tmp_path.iterdir())
    assert said in refusal(*train(made / "store", tmp_path / "run", images, *options))
    assert set(tmp_path.iterdir()) == before


def test_a_fresh_run_takes_images_and_no_store(made, images, tmp_path):
    run = tmp_path / "run"
    fresh = ("--online", "fresh", *PRETRAIN)
    assert "is a store, and --online fresh takes images" in refusal("pretrain", made / "store", run, *fresh)
    assert "--images stands in the place of STORE" in refusal("pretrain", images, run, "--images", images, *fresh)
    assert "There is no recipe called 'none'" in refusal("pretrain", images, run, *fresh, "--views", "none")
    assert "There is no teacher called 'no:such'" in refusal("pretrain", images, run, *fresh, "--teacher", "no:such")
    assert "Missing argument 'RUN'" in refusal("pretrain", images, *fresh)
    assert not run.exists()


@pytest.mark.parametrize("kind", ["replay", "fresh"])
def test_two_ranks_each_ask_the_teacher_for_their_own_share(made, images, tmp_path, kind):
    def words(run):
        if kind == "fresh":
            return ["pretrain", images, run, "--online", "fresh", *PRETRAIN, *EVERY]
        return [*train(made / "store", run, images, *EVERY), "--online", "replay"]

    assert caev2(*words(tmp_path / "alone")).exit_code == 0
    process = start([PROGRAM, *words(tmp_path / "ranks"), "--gpus", 2])
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    np.testing.assert_allclose(losses(tmp_path / "ranks"), losses(tmp_path / "alone"), rtol=1e-5)
