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
