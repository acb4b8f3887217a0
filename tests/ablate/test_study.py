"""A study is a folder of sealed stores over the same images."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest

from caev2.ablate.grid_files import grid_of
from caev2.ablate.making import StoreMaking
from caev2.ablate.plan import make_plan
from caev2.ablate.study import command_for, open_study, stores_of
from caev2.errors import ConfigError, StoreIncomplete, StoreMismatch
from caev2.extract.recipes import DEMO
from caev2.extract.run import extract
from tests.ablate.studying import grid, make_labelled, plan


def over_stores(*names: str, **content):
    return grid(axis=[{"name": "store", "field": "store", "values": list(names)}], **content)


def test_stores_are_named_by_their_folders(made):
    assert stores_of(made / "study") == ["still", "views"]
    study = open_study(made / "study", ["still", "views", "int8"])
    assert {name: store.path for name, store in study.stores.items()} == {
        name: made / "study" / name for name in ("still", "views")
    }
    assert "int8" not in study


def test_stores_of_other_images_are_refused_with_what_differs(made, tmp_path):
    shutil.copytree(made / "study", tmp_path / "study")
    images = make_labelled(tmp_path / "images")
    changed = images / "train" / "class-0" / "4.png"
    changed.write_bytes((images / "train" / "class-0" / "2.png").read_bytes())
    extract(images, tmp_path / "study" / "other", dataclasses.replace(DEMO, view_count=2))
    with pytest.raises(StoreMismatch, match=r"the xxh3_128 of '.*class-0/4\.png' is"):
        open_study(tmp_path / "study", ["views", "other"])
    assert open_study(tmp_path / "study", ["views", "still"])  # what no grid asks for is left alone


def test_a_store_of_fewer_images_is_refused(made, tmp_path):
    shutil.copytree(made / "study", tmp_path / "study")
    images = make_labelled(tmp_path / "images")
    (images / "train" / "class-0" / "4.png").unlink()
    extract(images, tmp_path / "study" / "other", dataclasses.replace(DEMO, view_count=2))
    with pytest.raises(StoreMismatch, match="it has 11 images, and not 12"):
        open_study(tmp_path / "study", ["views", "other"])


def test_an_unsealed_store_is_refused(made, tmp_path):
    shutil.copytree(made / "study", tmp_path / "study")
    unseal(tmp_path / "study" / "views")
    with pytest.raises(StoreIncomplete, match="is not sealed"):
        plan(tmp_path, grid())


def unseal(store) -> None:
    from caev2.store.manifest import begin_like, read_manifest

    manifest = begin_like(read_manifest(store))
    (store / "manifest.json").write_bytes(manifest.to_bytes())
    assert json.loads((store / "manifest.json").read_text())["state"] == "building"


def test_a_store_in_the_place_of_a_study_is_refused(made):
    with pytest.raises(ConfigError, match="is a store, and a study is a folder of stores"):
        open_study(made / "study" / "views", ["views"])


def test_a_folder_that_is_not_there_yet_is_a_study_without_stores(tmp_path):
    assert open_study(tmp_path / "none", ["views"]).stores == {}
    found = make_plan(tmp_path / "none", [grid()])
    assert found.missing == {"views": f"caev2 extract IMAGES {tmp_path / 'none' / 'views'}"}
    with pytest.raises(ConfigError, match=r"none is not there yet, and lacks the stores views\. Make them: `caev2 "):
        found.refuse_missing()
    (tmp_path / "none").write_text("")
    with pytest.raises(ConfigError, match="is a file, and a study is a folder"):
        open_study(tmp_path / "none", ["views"])


def test_a_store_that_is_linked_is_one_of_the_study(made, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "views").symlink_to(made / "study" / "views")
    assert stores_of(tmp_path / "study") == ["views"]
    there, linked = plan(made, grid()), make_plan(tmp_path / "study", [grid()], images=made / "images")
    assert (linked.missing, linked.runs.keys()) == ({}, there.runs.keys())


def test_a_missing_store_is_named_with_the_command_that_makes_it(made):
    stores = {
        "int8": {"convert": "int8", "of": "still", "targets": ["projected", "post_norm"], "any_quality": True},
        "other": {"extract": ["--recipe", "demo", "--set", 'taps=["projected"]']},
    }
    found = plan(made, over_stores("views", "int8", "other", stores=stores))
    study, images = made / "study", made / "images"
    assert dict(found.missing) == {
        "int8": f"caev2 store convert {study}/still {study}/int8 --codec int8 "
        "--targets projected,post_norm --any-quality",
        "other": f"caev2 extract {images} {study}/other --recipe demo --set 'taps=[\"projected\"]'",
    }
    with pytest.raises(ConfigError, match=r"lacks the stores int8, other\. Make them: `caev2 store convert"):
        found.refuse_missing()


def test_commands_are_quoted_for_a_shell():
    study, images = "my studies/one", "my images"
    convert, extract = StoreMaking(convert="pq"), StoreMaking(extract=("--views", "2"))
    for command in (convert.command(study, "v", images), extract.command(study, "v", images)):
        assert "my studies/one/v" in shlex.split(command)
    assert shlex.split(command_for(Path(study), "v", {}, images)) == ["caev2", "extract", images, f"{study}/v"]
    built_in = StoreMaking(built_in=True)
    assert shlex.split(built_in.command("my studies/study", "v", images))[-2:] == ["--out", "my studies"]
    other = built_in.command(study, "v", images)
    assert other.endswith("  # makes my studies/study: give that in the place of my studies/one")
    assert shlex.split(other, comments=True) == ["caev2", "demo", "--study", "--out", "my studies"]


def test_a_missing_store_of_which_nothing_is_said_offers_the_nearest(made):
    found = plan(made, over_stores("views", "view"))
    assert found.missing["view"].startswith(f"caev2 extract {made / 'images'} {made / 'study' / 'view'}")
    assert "Did you mean 'views'?" in found.missing["view"]


def test_a_grid_of_one_store_needs_no_other(made):
    content = {"recipe": "demo", "store": "still", "axis": [{"name": "views", "field": "views", "values": [1]}]}
    assert not plan(made, grid_of("one", content), overrides={"batch_size": 4}).missing


def test_a_store_that_another_is_made_of_is_made_before_it(made):
    stores = {"few": {"convert": "int8", "of": "whole"}, "whole": {"extract": ["--views", "2"]}}
    found = plan(made, over_stores("views", "few", stores=stores))
    study = made / "study"
    assert list(found.missing.values()) == [
        f"caev2 extract {made / 'images'} {study}/whole --views 2",
        f"caev2 store convert {study}/whole {study}/few --codec int8",
    ]
    of_one_there = {"few": {"convert": "int8", "of": "still"}}
    assert list(plan(made, over_stores("views", "few", stores=of_one_there)).missing) == ["few"]
