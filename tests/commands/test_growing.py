"""Growing a store from the command line."""

import json
import shutil

from tests.commands.invoking import EXTRACT, caev2, refusal


def test_a_store_is_extended_and_a_second_target_is_grafted(made, images, store, tmp_path):
    done = caev2("store", "extend", store, "--images", images, "--views", 3, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["views"] == 3
    part = tmp_path / "part"
    named = ("--set", 'target_prefix="again-"', "--set", 'taps=["post_norm"]', "--views", "3")
    assert caev2("extract", images, part, *EXTRACT, *named).exit_code == 0
    done = caev2("store", "graft", store, part, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["targets"] == ["again-post_norm", "projected"]
    assert caev2("store", "verify", store, "--images", images).exit_code == 0
    assert "its number of views is 3, and not 2" in refusal("store", "graft", made / "store", part)


def test_another_teachers_targets_are_made_of_kept_crops(images, tmp_path):
    store, part = tmp_path / "store", tmp_path / "part"
    assert caev2("extract", images, store, *EXTRACT, "--crops", "jpeg").exit_code == 0
    asked = (
        "--from-crops",
        "--teacher",
        "demo",
        "--set",
        "teacher_px=32",
        "--set",
        "target_prefix=small-",
        "--device",
        "cpu",
    )
    planned = caev2("extract", store, part, *asked, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert (
        "sees the student's crops resized to 32 pixels, the student 64; a student of 16-pixel patches has its 4x4 grid"
        in planned.stderr
    )
    assert "small-projected: 17 x " in planned.stdout
    assert not part.exists()
    done = caev2("extract", store, part, *asked, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows_computed"] == 20
    assert "the store is whole already" in caev2("extract", store, part, *asked).stderr
    assert caev2("store", "graft", store, part).exit_code == 0
    said = caev2("store", "info", store).stdout
    assert "crops of 64 pixels resized to 32" in said
    assert "the crops of 64 pixels" in said
    again = caev2("store", "verify", store, "--teacher", 3, "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert again.stdout.count("teacher again") == 2
    shown = caev2("store", "show", store, "--target", "small-projected", "--out", tmp_path / "picture.png", "--json")
    assert json.loads(shown.stdout)["teacher_px"] == 32
    boxes = ("--teacher", "demo", "--set", "teacher_px=32", "--set", "target_prefix=box-", "--crops", "jpeg")
    assert caev2("extract", images, tmp_path / "boxes", *EXTRACT, *boxes).exit_code == 0
    assert caev2("store", "graft", store, tmp_path / "boxes").exit_code == 0
    assert "the boxes at 32 pixels" in caev2("store", "info", store).stdout
    verify = ("store", "verify", store, "--teacher", 3, "--device", "cpu")
    assert "a teacher saw their boxes at another size. Give --images" in refusal(*verify)
    again = caev2(*verify, "--images", images)
    assert (again.exit_code, again.stdout.count("teacher again")) == (0, 3)


def test_what_kept_crops_cannot_give_is_refused(made, images, store, tmp_path):
    part = tmp_path / "part"
    assert "keeps no crops" in refusal("extract", store, part, *EXTRACT[-3:], "--from-crops")
    assert "There is no store at" in refusal("extract", images, part, "--from-crops")
    assert "is a store and no images" in refusal("extract", store, part, *EXTRACT[-3:])
    kept = tmp_path / "kept"
    assert caev2("extract", images, kept, *EXTRACT, "--crops", "raw").exit_code == 0
    asked = ("extract", kept, part, "--from-crops", "--teacher", "demo", "--device", "cpu", "--quiet")
    assert "its view_count is 2, and 3 was asked for" in refusal(*asked, "--views", 3)
    assert "its crops is raw, and jpeg was asked for" in refusal(*asked, "--crops", "jpeg", "--dry-run")
    assert "its block_images is 4, and 5 was asked for" in refusal(*asked, "--set", "block_images=5")
    assert "is a URL. Bring the store here first" in refusal("extract", "s3://bucket/store", part, "--from-crops")
    assert not part.exists()


def test_what_cannot_grow_is_refused(made, images, tmp_path):
    extend = ("store", "extend", made / "store", "--images", images, "--device", "cpu")
    assert "has 2 views already, 1 were asked for" in refusal(*extend, "--views", 1)
    assert "There is no store at" in refusal("store", "graft", made / "store", tmp_path / "none")
    other = shutil.copytree(images, tmp_path / "images")
    shutil.copy(other / "train/class-0/2.png", other / "train/class-0/0.png")
    copy = shutil.copytree(made / "store", tmp_path / "store")
    said = refusal("store", "extend", copy, "--images", other, "--views", 3, "--device", "cpu")
    assert "is not the file that" in said
    assert not (tmp_path / "store.growing").exists()
    assert caev2("store", "verify", copy).exit_code == 0
