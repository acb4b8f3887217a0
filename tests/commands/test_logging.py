"""Where the figures of a run can be seen."""

import importlib.util
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caev2.pretrain.telling.log import read_log
from tests.commands.invoking import caev2, refusal, train


def test_tensorboard_shows_the_steps_of_the_log(made, run):
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    shown = [(event.step, event.value) for event in accumulator.Scalars("loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"])) for line in read_log(run)]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="the package is installed")
def test_weights_and_biases_without_the_package_is_refused_before_anything_is_written(made, images, tmp_path):
    said = refusal(*train(made / "store", tmp_path / "run", images, "--wandb", "students"))
    assert "--wandb students needs the package wandb" in said
    assert "pip install 'caev2[wandb]'" in said
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_keeps_the_run_in_its_folder_when_offline(made, images, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    done = caev2(*train(made / "store", tmp_path / "run", images, "--wandb", "students"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "wandb.json").read_bytes())["project"] == "students"
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
