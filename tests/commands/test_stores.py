"""What damaged, foreign and unfinished stores get."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from caev2.store.manifest import read_manifest
from tests.commands.invoking import (
    EXTRACT,
    SHARD,
    caev2,
    cut,
    files_of,
    flip_a_bit,
    flip_bits_of_every_row,
    make_folder,
    refusal,
    train,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "views.seed=1"], "its views.seed is 0, this command asks for 1"),
        (["--views", "3"], "its views is 2, this command asks for 3"),
    ],
)
def test_a_store_of_another_spec_is_refused_and_left_alone(images, store, change, message):
    before = files_of(store)
    assert message in refusal("extract", images, store, *EXTRACT, *change)
    assert files_of(store) == before


def test_a_store_of_another_teacher_is_refused_and_left_alone(images, store, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    from caev2.extract.teachers import shipped

    with safe_open(shipped._WEIGHTS, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1
    save_file(tensors, tmp_path / "other.safetensors", metadata)
    before = files_of(store)
    said = refusal("extract", images, store, *EXTRACT, "--teacher", f"demo@{tmp_path / 'other.safetensors'}")
    assert "targets.projected.teacher.sha256 is '61383107" in said
    assert files_of(store) == before


def test_an_unsealed_store_is_not_trained_on(store, images, tmp_path):
    manifest = dataclasses.replace(read_manifest(store), state="building", root_digest=None)
    (store / "manifest.json").write_bytes(manifest.to_bytes())
    said = refusal(*train(store, tmp_path / "run", images))
    assert "is not sealed: its extraction did not finish. Run the same `caev2 extract` again" in said
    assert not (tmp_path / "run").exists()
    assert "state          building" in caev2("store", "info", store).stdout


@pytest.mark.parametrize("damage", [flip_bits_of_every_row, cut, Path.unlink], ids=["bits", "cut", "gone"])
def test_a_damaged_shard_is_named_by_training_and_verify_and_repaired_as_advised(made, store, images, tmp_path, damage):
    damage(store / SHARD)
    said = refusal(*train(store, tmp_path / "run", images))
    assert SHARD in said
    assert "delete the unit's record and extract again" in said
    verified = caev2("store", "verify", store, "--quiet")
    assert verified.exit_code == 2
    assert SHARD in verified.stderr
    (store / "units" / "000000.json").unlink()
    assert caev2("extract", images, store, *EXTRACT).exit_code == 0
    assert files_of(store) == files_of(made / "store")


def test_lost_units_of_a_sealed_store_are_not_replaced_by_those_of_other_images(made, store, tmp_path):
    images = shutil.copytree(made / "images", tmp_path / "images")
    shutil.copy(images / "train/class-0/2.png", images / "train/class-0/0.png")
    (store / "units" / "000000.json").unlink()
    said = refusal("extract", images, store, *EXTRACT)
    assert "images or teacher are not what they were" in said
    assert caev2("store", "verify", store, "--quiet").exit_code == 2


@pytest.mark.parametrize("damage", [flip_a_bit, cut, make_folder], ids=["bit", "cut", "folder"])
def test_a_damaged_manifest_is_refused_by_every_command(store, images, tmp_path, damage):
    damage(store / "manifest.json")
    for command in (
        ("store", "info", store),
        ("store", "verify", store),
        train(store, tmp_path / "run", images),
        ("extract", images, store, *EXTRACT),
    ):
        said = refusal(*command)
        assert "manifest.json" in said
        assert "xtract" in said or "another place" in said


@pytest.mark.parametrize("name", ["units/000000.json", "index.parquet"])
@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, make_folder], ids=["bit", "gone", "folder"])
def test_other_damage_is_named_by_verify(store, name, damage):
    damage(store / name)
    verified = caev2("store", "verify", store, "--json", "--quiet")
    assert verified.exit_code == 2
    assert any(name in problem for problem in json.loads(verified.stdout)["problems"])
