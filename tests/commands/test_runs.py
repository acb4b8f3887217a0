"""What foreign and damaged runs and checkpoints get."""

import contextlib
import shutil

import pytest
import torch

from caev2.pretrain.identity import read_identity
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import latest_checkpoint, list_checkpoints
from tests.commands.invoking import (
    PRETRAIN,
    caev2,
    cut,
    files_of,
    flip_a_bit,
    refusal,
    train,
)
from tests.pretrain.canary import hostile_files


def test_training_without_images_is_refused(made, tmp_path):
    said = refusal("pretrain", made / "store", tmp_path / "run", *PRETRAIN)
    assert "Give --images, the folder it was extracted from" in said
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_size_is_refused_and_left_alone(made, images, run):
    before = files_of(run)
    said = refusal(*train(made / "store", run, images, "--set", "model.depth=2"))
    assert "its recipe.model.depth is 1, this command asks for 2" in said
    assert "already has a checkpoint at step 4" in refusal(*train(made / "store", run, images, "--resume", "never"))
    assert files_of(run) == before


def test_a_checkpoint_of_another_size_is_refused(made, images, run, tmp_path):
    other = tmp_path / "other"
    assert caev2(*train(made / "store", other, images, "--set", "model.depth=2")).exit_code == 0
    ours = latest_checkpoint(run / "checkpoints").path
    shutil.copy(latest_checkpoint(other / "checkpoints").path, ours)
    for command in (("probe", run, images, "--device", "cpu"), train(made / "store", run, images)):
        assert f"the run of its folder has {read_identity(run).fingerprint()}" in refusal(*command)


@pytest.mark.parametrize("kind", ["pickle of protocol 0", "pickle of protocol 4", "zip archive"])
def test_a_pickle_in_place_of_checkpoints_is_refused_and_not_run(made, images, run, tmp_path, kind):
    canary = tmp_path / "canary"
    content = hostile_files(canary)[kind]
    for checkpoint in list_checkpoints(run / "checkpoints"):
        checkpoint.path.write_bytes(content)
    assert "is damaged or no checkpoint" in refusal(*train(made / "store", run, images))
    assert "is damaged or no checkpoint" in refusal("probe", run, images, "--device", "cpu")
    (tmp_path / "foreign.pth").write_bytes(content)
    assert "Nothing was run" in refusal("import", tmp_path / "foreign.pth", tmp_path / "imported")
    assert not canary.exists()
    assert not (tmp_path / "imported").exists()
    with contextlib.suppress(RuntimeError):
        torch.load(tmp_path / "foreign.pth", weights_only=False)
    assert canary.exists(), "the canary is dead: it does not show what careless reading would have done"


@pytest.mark.parametrize("damage", [flip_a_bit, cut])
def test_a_damaged_checkpoint_is_told_and_training_goes_on_from_the_sound_one_before_it(made, images, run, damage):
    damage(latest_checkpoint(run / "checkpoints").path)
    said = refusal("probe", run, images, "--device", "cpu")
    assert "step-000000002.safetensors before it is sound: `caev2 pretrain` goes on from there" in said
    done = caev2(*train(made / "store", run, images))
    assert done.exit_code == 0, done.output
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert "step-000000004.safetensors is damaged or no checkpoint" in warning
    assert "Steps 2 to 4 are trained again. It was moved to" in warning
    assert [record["loss"] for record in read_log(run)] == [record["loss"] for record in read_log(made / "run")]


def test_a_damaged_log_names_its_line(made, images, run):
    lines = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(b"[]\n" + lines)
    assert "line 1 of" in refusal(*train(made / "store", run, images))
    (run / "log.jsonl").write_bytes(lines + b'{"step": 9')
    assert caev2(*train(made / "store", run, images)).exit_code == 0


def test_what_is_no_run_is_not_probed(made, images, tmp_path):
    assert "is no checkpoint that can be read" in refusal("probe", made / "run" / "run.json", images)
    for path in (images, tmp_path / "missing"):
        assert "it has no run.json. Make one with `caev2 pretrain`" in refusal("probe", path, images)
    assert "with one run, not 0" in refusal("probe", images)
    assert "with one run, not 2" in refusal("probe", made / "run", made / "run", images)
    assert "cannot be 0 pixels" in refusal("probe", "--pixels", "0", images)
    assert "There is no recipe called 'nope'" in refusal("probe", "--random-init", "nope", images)


def test_import_refuses_what_is_no_checkpoint(run, tmp_path):
    (tmp_path / "text.pth").write_text("words")
    assert "There is no file at" in refusal("import", tmp_path / "missing", tmp_path / "new")
    said = refusal("import", tmp_path / "text.pth", tmp_path / "new")
    assert "it is neither safetensors nor what torch.save writes" in said
    assert "is a run already" in refusal("import", tmp_path / "text.pth", run)
    assert not (tmp_path / "new").exists()
