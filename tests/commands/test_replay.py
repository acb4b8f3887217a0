"""`pretrain --replay`: what a run that diverged has left, shown again."""

import dataclasses
import json
from pathlib import Path

import pytest

from caev2.pretrain.learning.kept_step import keep_step, read_step
from caev2.pretrain.learning.step import Objective
from caev2.pretrain.student.model import build
from tests.commands.invoking import caev2, files_of, flip_a_bit, refusal, train
from tests.pretrain.canary import hostile_files

HOT = ("epochs=6", "optimizer.lr=1e30", "optimizer.warmup_epochs=0.0", "optimizer.clip_norm=none")


@pytest.fixture(scope="module")
def diverged(made, tmp_path_factory) -> Path:
    """A file that a run has left; the run says how to show it."""
    run = tmp_path_factory.mktemp("hot") / "run"
    settings = [part for text in HOT for part in ("--set", text)]
    result = caev2(*train(made / "store", run, made / "images", *settings))
    assert result.exit_code == 2, result.output
    (path,) = run.glob("diverged-step-*.safetensors")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"caev2: {run}: loss or gradients were not finite in 3 steps in a row")
    assert f"`caev2 pretrain --replay {path}` shows the last one again" in last
    assert "Lower optimizer.lr" in last
    warnings = [line for line in result.stderr.splitlines() if "was skipped: loss" in line]
    assert [line.split(". ")[-1] for line in warnings] == [f"{n} in a row; a run stops at 3." for n in (1, 2, 3)]
    return path


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def test_a_step_that_is_not_finite_again_is_shown_with_status_1_and_nothing_is_written(diverged):
    before = files_of(diverged.parent)
    shown = caev2("pretrain", "--replay", diverged, "--device", "cpu")
    assert shown.exit_code == 1, shown.output
    assert shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert lines[0] == f"Computed again {diverged}"
    facts = dict(line.split(maxsplit=1) for line in lines[1:])
    assert facts["finite"] == "False"
    assert facts["step"] == diverged.stem.rpartition("-")[2]
    assert facts["first_not_finite"].startswith(("weights ", "output of "))
    assert {"loss", "cosine_class", "cosine_visible", "cosine_masked", "grad_norm", "grad_norms"} <= facts.keys()
    assert files_of(diverged.parent) == before


def test_the_result_is_json_with_null_for_what_is_not_finite(diverged):
    shown = caev2("pretrain", "--replay", diverged, "--device", "cpu", "--json")
    assert shown.exit_code == 1
    facts = json.loads(shown.stdout, parse_constant=refuse)
    assert facts["finite"] is False
    assert facts["loss"] is None or facts["grad_norm"] is None
    assert facts["recorded"]["device"] == "cpu"


def test_a_step_that_is_finite_this_time_has_status_0(diverged, tmp_path):
    kept = read_step(diverged)
    path = tmp_path / "sound.safetensors"
    objective = Objective(build(kept.model, seed=0))
    keep_step(path, objective, kept.batch, kept.latents, device="cpu", figures=kept.figures)
    shown = caev2("pretrain", "--replay", path, "--device", "cpu", "--json")
    assert shown.exit_code == 0, shown.output
    facts = json.loads(shown.stdout, parse_constant=refuse)
    assert facts["finite"] is True
    assert facts["first_not_finite"] is None
    assert 0 < facts["loss"] < 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["store"], "'[STORE]'"),
        (["--recipe", "demo"], "'--recipe'"),
        (["--set", "seed=1"], "'--set'"),
        (["--dry-run"], "'--dry-run'"),
        (["--resume", "auto"], "'--resume'"),
    ],
)
def test_other_words_beside_a_replay_are_refused(diverged, words, hint):
    said = refusal("pretrain", "--replay", diverged, *words)
    assert f"--replay takes everything from its file; leave {hint} away." in said


def test_without_a_replay_store_and_run_are_wanted(tmp_path):
    assert "Missing argument 'STORE'" in refusal("pretrain")
    assert "Missing argument 'RUN'" in refusal("pretrain", tmp_path)


def test_what_is_no_kept_step_is_refused(diverged, made, tmp_path):
    assert "There is no file" in refusal("pretrain", "--replay", tmp_path / "absent")
    assert "diverged-step-<number>.safetensors" in refusal("pretrain", "--replay", tmp_path)
    checkpoint = next((made / "run" / "checkpoints").glob("*.safetensors"))
    assert "is no kept step (its format is 'caev2 checkpoint 1'" in refusal("pretrain", "--replay", checkpoint)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(diverged.read_bytes())
    flip_a_bit(copy)
    assert "is damaged or no kept step" in refusal("pretrain", "--replay", copy)
    for kind, content in hostile_files(tmp_path / "canary").items():
        copy.write_bytes(content)
        assert "is damaged or no kept step" in refusal("pretrain", "--replay", copy), kind
    assert not (tmp_path / "canary").exists()
    assert dataclasses.is_dataclass(read_step(diverged))
