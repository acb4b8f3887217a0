import contextlib
import dataclasses
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from caev2.errors import CheckpointError, OutputError
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.parameters import adamw, set_learning_rate
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from tests.pretrain.canary import hostile_files

SETTINGS = ModelSettings(
    image_px=16, patch_px=8, width=8, depth=1, heads=2, regressor_width=12, regressor_depth=1,
    regressor_heads=2, target_width=8, drop_path=0.0,
)  # fmt: skip
VISIBLE, MASKED = torch.tensor([[0, 3]] * 2), torch.tensor([[1, 2]] * 2)


class Training:
    """A student and its optimiser, trained on made-up batches that depend on the step alone."""

    def __init__(self, settings: ModelSettings = SETTINGS, seed: int = 0):
        self.model: CAEv2 = build(settings, seed)
        self.optimizer = adamw(self.model)

    def train(self, steps: range) -> "Training":
        set_learning_rate(self.optimizer, 0.01)
        for step in steps:
            images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            self.model(images, VISIBLE, MASKED).square().mean().backward()
            if step != 2:  # a skipped step: AdamW's own counter then lags behind
                self.optimizer.step()
        return self

    def save(self, folder: Path, step: int, keep_last: int = 3):
        return save_checkpoint(folder, self.model, self.optimizer, step=step, fingerprint="abc", keep_last=keep_last)

    def load(self, path: Path, fingerprint: str = "abc") -> int:
        return load_checkpoint(path, self.model, self.optimizer, fingerprint=fingerprint).step

    def bits(self) -> list[bytes]:
        state = self.optimizer.state_dict()["state"]
        kept = [one[key] for one in state.values() for key in ("step", "exp_avg", "exp_avg_sq")]
        tensors = [*self.model.state_dict().values(), *kept]
        return [tensor.numpy().tobytes() for tensor in tensors]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = Training().train(range(8))
    Training().train(range(5)).save(tmp_path, 5)
    resumed = Training(seed=9)
    step = resumed.load(tmp_path / "step-000000005.safetensors")
    assert step == 5
    assert resumed.train(range(step, 8)).bits() == whole.bits()


def test_a_checkpoint_of_a_run_that_has_not_begun_can_be_resumed(tmp_path):
    Training().save(tmp_path, 0)
    resumed = Training(seed=9).train(range(3))
    assert resumed.load(tmp_path / "step-000000000.safetensors") == 0
    assert resumed.train(range(3)).bits() == Training().train(range(3)).bits()


def test_the_same_state_gives_the_same_bytes(tmp_path):
    first = Training().train(range(3)).save(tmp_path / "one", 3).path.read_bytes()
    assert Training().train(range(3)).save(tmp_path / "two", 3).path.read_bytes() == first


def test_what_a_writer_that_was_killed_left_is_removed_by_the_next_one(tmp_path):
    for name in (".step-000000001.safetensors.tmp", ".tmpMQyP4V"):  # ours, and the one that safetensors writes first
        (tmp_path / name).write_bytes(b"half a checkpoint")
    Training().save(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000.safetensors"]


def test_weights_alone_can_be_loaded(tmp_path):
    trained = Training().train(range(3))
    path = trained.save(tmp_path, 3).path
    model = build(SETTINGS, seed=9)
    with pytest.raises(CheckpointError, match="fingerprint abc, the run of its folder has def"):
        load_weights(path, model, fingerprint="def")
    assert not torch.equal(model.head.linear.weight, trained.model.head.linear.weight)
    assert load_weights(path, model, fingerprint="abc") == 3
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_the_last_few_checkpoints_stay(tmp_path):
    training = Training()
    for step in (0, 9, 10, 100_000_000):
        training.save(tmp_path, step, keep_last=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [10, 100_000_000]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.step == 100_000_000


def test_a_folder_without_checkpoints_has_no_latest(tmp_path):
    (tmp_path / "step-1.safetensors").write_bytes(b"another's")
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_removed(tmp_path):
    (tmp_path / ".step-000000007.safetensors.tmp").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    Training().save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.safetensors"]


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.999])
def test_one_flipped_bit_is_noticed_and_the_sound_one_before_is_named(place, tmp_path):
    training = Training()
    training.train(range(2)).save(tmp_path, 2)
    training.save(tmp_path, 3)
    path = training.train(range(3, 5)).save(tmp_path, 5).path
    for damaged in (path, tmp_path / "step-000000003.safetensors"):
        content = bytearray(damaged.read_bytes())
        content[int(place * len(content))] ^= 4
        damaged.write_bytes(content)
    before = training.bits()
    assert latest_checkpoint(tmp_path).path == path
    with pytest.raises(
        CheckpointError, match=r"step-000000005.* damaged .*step-000000002.* sound: .* goes on from there"
    ):
        training.load(path)
    assert training.bits() == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(share, tmp_path):
    path = Training().train(range(1)).save(tmp_path, 1).path
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"damaged or no checkpoint .*start a new run"):
        Training().load(path)


@pytest.mark.parametrize("kind", ["pickle of protocol 2", "pickle of protocol 4", "zip archive"])
def test_a_pickle_in_place_of_a_checkpoint_is_refused_and_nothing_runs(kind, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "step-000000001.safetensors"
    path.write_bytes(hostile_files(canary)[kind])
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        Training().load(path)
    assert not canary.exists()


def test_safetensors_of_something_else_are_refused(tmp_path):
    path = tmp_path / "step-000000001.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="its format is None, not 'caev2 checkpoint 1'"):
        Training().load(path)


def test_an_absent_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint at .*step-000000001"):
        Training().load(tmp_path / "step-000000001.safetensors")


def test_a_checkpoint_of_other_sizes_names_the_first_tensor_and_both_shapes(tmp_path):
    path = Training().train(range(1)).save(tmp_path, 1).path
    wider = Training(dataclasses.replace(SETTINGS, width=16))
    before = wider.bits()
    with pytest.raises(CheckpointError, match=r"encoder.cls_token has shape \(1, 1, 8\), this one's \(1, 1, 16\)"):
        wider.load(path)
    deeper = Training(dataclasses.replace(SETTINGS, depth=2))
    with pytest.raises(CheckpointError, match=r"encoder.blocks.1.\S+ has shape none, this one's \("):
        deeper.load(path)
    assert wider.bits() == before


def test_a_checkpoint_of_another_run_is_refused_with_both_fingerprints(tmp_path):
    path = Training().save(tmp_path, 1).path
    with pytest.raises(CheckpointError, match="fingerprint abc, the run of its folder has def"):
        Training().load(path, fingerprint="def")
    assert Training().load(path, fingerprint="abc") == 1


@contextlib.contextmanager
def nearly_full_disk():
    """No file may grow beyond 10,000 bytes, so that the system itself refuses to write on.

    Around a few lines only: pytest writes its own output between tests, perhaps into a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(tmp_path):
    training = Training().train(range(2))
    path = training.save(tmp_path, 2, keep_last=1).path
    content = path.read_bytes()
    assert len(content) > 10_000
    says = r"Cannot write .*step-000000003.*File too large.*make space"
    with nearly_full_disk(), pytest.raises(OutputError, match=says):
        training.save(tmp_path, 3, keep_last=1)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"Cannot write .*step-000000001"):
        Training().save(tmp_path / "file" / "checkpoints", 1)
