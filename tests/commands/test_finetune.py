"""`caev2 finetune`: a run, a file, a random start, a teacher; what is printed, what is refused."""

import json
import subprocess
import sys

import pytest
import torch

from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import SIZES
from caev2.pretrain.weights.official import to_official
from tests.commands.invoking import caev2, refusal

QUICK = (
    "--recipe", "demo", "--quiet", "--device", "cpu",
    "--set", "epochs=2", "--set", "batch_size=4", "--set", "mix.mixup=0.2", "--set", "mix.images=2",
)  # fmt: skip


def ask(*arguments) -> dict:
    result = caev2("finetune", *QUICK, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_run_is_fine_tuned_into_a_folder_of_its_own(run, images, tmp_path):
    before = sorted(path.name for path in run.iterdir())
    found = ask(run, "--train", images, "--out", tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "result.json").read_text()) == found
    (student,) = found["subjects"]
    assert (student["role"], student["name"]) == ("student", "student")
    assert set(student["accuracy"]["finetune"]) == {"value", "low", "high"}
    assert found["run"]["step"] == 4
    assert (found["train_images"], found["val_images"]) == (10, 4)
    assert sorted(path.name for path in run.iterdir()) == before
    said = caev2("finetune", run, "--train", images, "--out", tmp_path / "tuned", *QUICK).stdout
    assert "finetune" in said
    assert "chosen on the very images that are reported" in said


def test_an_export_is_fine_tuned_as_the_run_is_that_it_came_from(run, images, tmp_path):
    own = ask(run, "--train", images, "--out", tmp_path / "of-run")["subjects"][0]
    hub = tmp_path / "hub"
    assert caev2("export", run, "--format", "huggingface", "--out", hub).exit_code == 0
    (student,) = ask(hub, "--train", images, "--out", tmp_path / "tuned")["subjects"]
    assert student["name"] == "student of hub"
    assert student["accuracy"] == own["accuracy"]
    assert student["per_class"] == own["per_class"]


def test_parts_may_be_named_apart(run, images, tmp_path):
    together = ask(run, "--train", images, "--out", tmp_path / "together")
    apart = ask(run, "--train", images / "train", "--val", images / "val", "--out", tmp_path / "apart")
    assert apart["subjects"] == together["subjects"]


def test_the_random_start_and_the_teacher_of_a_run_are_tuned_alike(run, images, tmp_path):
    found = {
        origin: ask(run, "--from", origin, "--train", images, "--out", tmp_path / origin)["subjects"][0]
        for origin in ("random", "teacher")
    }
    assert [one["role"] for one in found.values()] == ["random start", "teacher"]
    assert found["teacher"]["name"] == "teacher demo"
    assert found["teacher"]["protocol"]["finetune"]["position_bias"] is False


def test_without_a_run_an_untrained_student_or_a_teacher_is_tuned(images, tmp_path):
    fresh = ask("--random-init", "demo", "--train", images, "--out", tmp_path / "fresh")
    assert fresh["subjects"][0]["name"] == "random start of demo"
    assert fresh["run"] is None
    teacher = ask("--teacher", "demo", "--train", images, "--out", tmp_path / "teacher")
    assert teacher["subjects"][0]["role"] == "teacher"


@pytest.mark.slow
def test_an_official_checkpoint_is_tuned(images, tmp_path):
    encoder = build(SIZES["tiny"], 0).encoder
    official = to_official({f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()})
    torch.save({"model": official}, tmp_path / "tiny.pth")
    found = ask(tmp_path / "tiny.pth", "--train", images, "--out", tmp_path / "tuned", "--set", "resize_px=none")
    assert found["subjects"][0]["name"] == "student of tiny.pth"
    assert found["subjects"][0]["crop_px"] == 224


def test_what_cannot_be_tuned_is_refused_in_one_line(run, images, tmp_path):
    out = ("--out", tmp_path / "tuned")
    data = ("--train", images, *out, *QUICK)
    assert "Name one start" in refusal("finetune", *data)
    assert "Name one start" in refusal("finetune", run, "--teacher", "demo", *data)
    assert "--from random is about a run" in refusal("finetune", "--random-init", "demo", "--from", "random", *data)
    assert "There is no run and no checkpoint at" in refusal("finetune", tmp_path / "nothing", *data)
    assert "There is no run at" in refusal("finetune", images, *data)
    assert "holds no moving average" in refusal("finetune", run, "--from", "average", *data)
    assert "Give another --out" in refusal("finetune", run, "--train", images, "--out", run, *QUICK)
    (tmp_path / "empty").mkdir()
    assert "There is no image in" in refusal("finetune", run, "--train", tmp_path / "empty", *out, *QUICK)
    assert "no setting called 'lr'" in refusal("finetune", run, *data, "--set", "lr=1")
    assert "no recipe called 'bass'" in refusal("finetune", run, *data, "--recipe", "bass")
    assert not (tmp_path / "tuned").exists()


def test_finished_work_is_refused_where_it_was_to_be_new(run, images, tmp_path):
    data = ("--train", images, "--out", tmp_path / "tuned")
    ask(run, *data)
    assert "there already, at step 4" in refusal("finetune", run, *data, *QUICK, "--resume", "never")
    assert "its recipe.seed is 0, this command asks for 1" in refusal("finetune", run, *data, *QUICK, "--set", "seed=1")


@pytest.mark.slow
def test_two_ranks_tune_and_count_as_one_does(run, images, tmp_path):
    alone = ask(run, "--train", images, "--out", tmp_path / "one")
    words = ["finetune", run, "--train", images, "--out", tmp_path / "two", *QUICK, "--gpus", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "caev2.cli", *map(str, words)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    one, two = (result["subjects"][0] for result in (alone, found))
    assert two["accuracy"] == one["accuracy"]
    assert two["per_class"] == one["per_class"]
    assert two["protocol"]["finetune"]["accuracy_by_epoch"] == one["protocol"]["finetune"]["accuracy_by_epoch"]
