"""Going on with a run whose files were damaged meanwhile: said aloud, and to the same weights."""

import dataclasses
from pathlib import Path

import pytest
import torch

from caev2.errors import CheckpointDamaged, CheckpointError
from caev2.pretrain.plan import plan
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import list_checkpoints, read_checkpoint
from caev2.pretrain.weights.tensor_file import write_tensors
from caev2.progress import Silent
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import STEPS, assert_equal_runs, files_of, train

OFTEN = dataclasses.replace(PRETRAIN, checkpoint_steps=1, keep_checkpoints=3)


class Listener(Silent):
    def __init__(self):
        self.heard: list[str] = []

    def warn(self, message: str) -> None:
        self.heard.append(message)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")  # what some file systems leave after a power cut


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def checkpoints_of(run: Path) -> list[Path]:
    return [checkpoint.path for checkpoint in list_checkpoints(run / "checkpoints")]


@pytest.mark.parametrize("damage", [flip_a_bit, cut, empty, zero])
def test_a_damaged_newest_checkpoint_is_told_and_set_aside_and_the_run_ends_as_if_undisturbed(data, tmp_path, damage):
    run, progress = tmp_path / "run", Listener()
    train(data, run, OFTEN, stop_after=6)
    newest = checkpoints_of(run)[-1]
    damage(newest)
    content = newest.read_bytes()
    assert plan(OFTEN, Store(data / "store"), run).resume_step == 5
    assert train(data, run, OFTEN, progress=progress).steps_computed == STEPS - 5
    assert len(progress.heard) == 1
    assert f"{newest} is damaged or no checkpoint" in progress.heard[0]
    assert "step-000000005.safetensors before it is sound" in progress.heard[0]
    assert "Steps 5 to 6 are trained again" in progress.heard[0]
    aside = newest.with_name(newest.name + ".damaged")
    assert progress.heard[0].endswith(f"It was moved to {aside}.")
    assert aside.read_bytes() == content
    train(data, tmp_path / "whole", OFTEN)
    assert_equal_runs(run, tmp_path / "whole")


def test_of_several_damaged_checkpoints_each_is_told(data, tmp_path):
    run, progress = tmp_path / "run", Listener()
    train(data, run, OFTEN, stop_after=6)
    for path in checkpoints_of(run)[1:]:
        flip_a_bit(path)
    assert train(data, run, OFTEN, progress=progress).steps_computed == STEPS - 4
    assert [message.split(" is damaged")[0][-21:] for message in progress.heard] == [
        "000000006.safetensors",
        "000000005.safetensors",
    ]


def test_a_damaged_checkpoint_pushes_no_sound_one_out(data, tmp_path):
    run, recipe = tmp_path / "run", dataclasses.replace(OFTEN, keep_checkpoints=2)
    train(data, run, recipe, stop_after=6)
    flip_a_bit(checkpoints_of(run)[-1])
    train(data, run, dataclasses.replace(recipe, keep_checkpoints=1), stop_after=6)
    (left,) = checkpoints_of(run)
    assert read_checkpoint(left)[1]["step"] == 6


def test_where_no_checkpoint_is_sound_the_newest_is_named_and_nothing_is_touched(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, OFTEN, stop_after=6)
    for path in checkpoints_of(run):
        cut(path)
    before = files_of(run)
    with pytest.raises(CheckpointDamaged, match=r"step-000000006.* There is no sound one before it: bring it back"):
        train(data, run, OFTEN)
    with pytest.raises(CheckpointDamaged, match=r"step-000000006"):
        plan(OFTEN, Store(data / "store"), run)
    assert files_of(run).keys() - {".lock"} == before.keys() - {".lock"}
    assert {name: files_of(run)[name] for name in before} == before


def test_a_checkpoint_of_a_later_version_is_not_taken_for_a_damaged_one(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, OFTEN, stop_after=6)
    write_tensors(checkpoints_of(run)[-1], {"a": torch.zeros(2)}, {"format": "caev2 checkpoint 2"})
    before = files_of(run)
    with pytest.raises(CheckpointError, match=r"its format is 'caev2 checkpoint 2', not 'caev2 checkpoint 1'"):
        train(data, run, OFTEN)
    assert files_of(run) == before


def test_resume_never_refuses_a_run_that_has_a_checkpoint(data, tmp_path):
    train(data, tmp_path / "run", stop_after=2)
    before = files_of(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"already has a checkpoint at step 2\. Go on with --resume auto"):
        train(data, tmp_path / "run", resume="never")
    assert files_of(tmp_path / "run") == before


def test_resume_never_refuses_a_run_that_was_killed_before_its_first_checkpoint(data, tmp_path):
    train(data, tmp_path / "run", stop_after=2)
    for path in checkpoints_of(tmp_path / "run"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"is a run already\. Go on with --resume auto"):
        train(data, tmp_path / "run", resume="never")
    assert train(data, tmp_path / "run").steps_computed == STEPS


def test_resume_never_begins_where_there_is_none(data, tmp_path):
    assert train(data, tmp_path / "run", resume="never").steps_computed == STEPS


def test_what_killed_trainers_left_half_written_is_removed_and_nothing_else(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, stop_after=2)
    (run / ("0123456789abcdef" * 2)).write_bytes(b"half")
    (run / "notes").write_bytes(b"mine")
    before = files_of(run).keys()
    train(data, run)
    assert before - files_of(run).keys() == {"0123456789abcdef" * 2, "checkpoints/step-000000002.safetensors"}
    assert (run / "notes").read_bytes() == b"mine"


def test_a_log_that_ends_in_half_a_line_is_mended_by_the_steps_that_are_trained_again(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, OFTEN, stop_after=6)
    with (run / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "ep')
    train(data, run, OFTEN)
    assert [record["step"] for record in read_log(run)] == list(range(STEPS))
