"""Training the made-up student, and comparing what came of it."""

from pathlib import Path

import torch

from caev2.pretrain.run import PretrainResult, pretrain
from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import latest_checkpoint, read_checkpoint
from tests.made_up_pretrain import PRETRAIN

STEPS = 9  # three epochs of three steps


def train(data: Path, run: Path, recipe=PRETRAIN, **options) -> PretrainResult:
    return pretrain(data / "store", run, recipe, images=data / "images", **options)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the latest checkpoint, the optimiser's included."""
    return read_checkpoint(latest_checkpoint(run / "checkpoints").path)[0]


def losses(run: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in read_log(run)]


def assert_equal_runs(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    first, second = last_weights(one), last_weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def files_of(folder: Path) -> dict[str, bytes]:
    """What a run holds, but for TensorBoard's files, which are named after the time and the process."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in paths.items() if name.parts[0] != "tensorboard"}
