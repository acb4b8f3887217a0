"""An official checkpoint becomes a run that is probed like any other."""

import argparse
import hashlib
import signal
import subprocess
import sys

import pytest
import torch

from caev2.errors import CheckpointError, OutputError, UnsafeFile
from caev2.eval.subjects import open_run
from caev2.pretrain.identity import read_identity
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import SIZES
from caev2.pretrain.weights.adopt import adopt_checkpoint, read_report
from caev2.pretrain.weights.official import to_official
from tests.pretrain.training import files_of, train


@pytest.fixture(scope="module")
def tiny():
    return build(SIZES["tiny"], seed=3)


def test_an_official_file_with_a_namespace_inside_becomes_a_run_with_the_same_features(tiny, tmp_path):
    content = {"model": to_official(tiny.state_dict()), "epoch": 299, "args": argparse.Namespace(lr=1.5e-3)}
    torch.save(content, tmp_path / "checkpoint-299.pth")
    result = adopt_checkpoint(tmp_path / "checkpoint-299.pth", tmp_path / "run")
    assert result.missing == ()
    model, images = open_run(tmp_path / "run", "cpu"), torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.encoder(images), tiny.encoder(images))


def test_an_encoder_only_file_becomes_a_run_and_says_what_starts_fresh(tiny, tmp_path):
    names = {name: tensor for name, tensor in to_official(tiny.state_dict()).items() if name.startswith("encoder.")}
    torch.save({"model": names}, tmp_path / "encoder.pth")
    result = adopt_checkpoint(tmp_path / "encoder.pth", tmp_path / "run")
    assert set(result.used) == set(names)
    assert any(name.startswith("regressor.") for name in result.missing)
    assert not any(name.startswith("encoder.") for name in result.missing)


def test_the_report_is_kept_in_the_run_and_weights_are_part_of_what_it_is(tiny, tmp_path):
    for name, seed in (("one", 3), ("other", 4)):
        torch.save({"model": to_official(build(SIZES["tiny"], seed).state_dict())}, tmp_path / f"{name}.pth")
        adopt_checkpoint(tmp_path / f"{name}.pth", tmp_path / name)
    kept = read_report(tmp_path / "one")
    assert kept["sha256"] == hashlib.sha256((tmp_path / "one.pth").read_bytes()).hexdigest()
    assert kept["used"]["decoder.head.bias"] == "head.linear.bias"
    assert str(tmp_path) not in (tmp_path / "one" / "import.json").read_text()
    first, second = (read_identity(tmp_path / name).fingerprint() for name in ("one", "other"))
    assert first != second


def test_without_a_run_the_file_is_looked_at_and_nothing_written(tiny, tmp_path):
    torch.save({"model": to_official(tiny.state_dict())}, tmp_path / "file.pth")
    assert adopt_checkpoint(tmp_path / "file.pth", None).missing == ()
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_a_run_is_never_overwritten(tiny, tmp_path):
    torch.save({"model": to_official(tiny.state_dict())}, tmp_path / "file.pth")
    adopt_checkpoint(tmp_path / "file.pth", tmp_path / "run")
    with pytest.raises(OutputError, match="is a run already"):
        adopt_checkpoint(tmp_path / "file.pth", tmp_path / "run")


def test_a_folder_with_something_in_it_is_left_alone(tiny, tmp_path):
    torch.save({"model": to_official(tiny.state_dict())}, tmp_path / "file.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is there already and no empty folder"):
        adopt_checkpoint(tmp_path / "file.pth", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from caev2.pretrain.weights.adopt import adopt_checkpoint
replace, left = os.replace, [int(sys.argv[3])]
def count_down(*paths):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    replace(*paths)
os.replace = count_down
adopt_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("replaced", [0, 1, 2, 3])
def test_a_killed_import_leaves_no_run_and_the_next_one_is_whole(tiny, tmp_path, replaced):
    """It is killed before the checkpoint, then run.json, its report, then the whole run comes to its place."""
    torch.save({"model": to_official(tiny.state_dict())}, tmp_path / "file.pth")
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, tmp_path / "file.pth", run, str(replaced)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not run.exists()
    adopt_checkpoint(tmp_path / "file.pth", run)
    assert open_run(run, "cpu").settings == tiny.settings
    assert {path.name for path in tmp_path.iterdir()} == {"file.pth", "run"}


def test_training_does_not_go_on_with_an_imported_run_but_says_how_to_start_from_it(tiny, data, tmp_path):
    torch.save({"model": to_official(tiny.state_dict())}, tmp_path / "file.pth")
    run = tmp_path / "run"
    adopt_checkpoint(tmp_path / "file.pth", run)
    before = files_of(run)
    with pytest.raises(CheckpointError, match=rf"no training that could go on.* --init-from {run}\."):
        train(data, run)
    assert files_of(run) == before


def test_what_is_no_checkpoint_leaves_no_run(tmp_path):
    (tmp_path / "text.pth").write_text("Saving to: ViT-B-16.pt")
    with pytest.raises((CheckpointError, UnsafeFile)):
        adopt_checkpoint(tmp_path / "text.pth", tmp_path / "run")
    with pytest.raises(CheckpointError, match="There is no file at"):
        adopt_checkpoint(tmp_path / "nothing.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()
