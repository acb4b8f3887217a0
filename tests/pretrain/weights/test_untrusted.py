import argparse
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from caev2.errors import CheckpointError, UnsafeFile
from caev2.pretrain.weights.untrusted import read_untrusted
from tests.pretrain.canary import hostile_files

KINDS = [
    "pickle of protocol 0",
    "pickle of protocol 2",
    "pickle of protocol 4",
    "zip archive",
    "file of before torch 1.6",
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_would_run_code_is_refused_by_name_and_nothing_runs(kind, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "official.pth"
    path.write_bytes(hostile_files(canary)[kind])
    with pytest.raises(UnsafeFile, match=r"asks for (posix|nt|os)\.mkdir") as refusal:
        read_untrusted(path)
    assert str(path) in str(refusal.value)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(hostile_files(canary)["pickle of protocol 2"])
    assert canary.exists()


def test_official_checkpoints_may_hold_a_namespace(tmp_path):
    path = tmp_path / "official.pth"
    settings = argparse.Namespace(lr=1.5e-3, model="cae_base", sizes=[1, 2], resume=None)
    torch.save({"model": {"a": torch.arange(3)}, "args": settings, "epoch": 299}, path)
    content = read_untrusted(path)
    assert content["model"]["a"].tolist() == [0, 1, 2]
    assert content["args"] == settings


def test_safetensors_are_read_as_well(tmp_path):
    save_file({"a": torch.arange(3)}, tmp_path / "official.safetensors")
    assert read_untrusted(tmp_path / "official.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_missing_file_is_named(suffix, tmp_path):
    with pytest.raises(CheckpointError, match=f"no checkpoint file at .*absent{suffix}"):
        read_untrusted(tmp_path / f"absent{suffix}")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@given(content=st.binary(max_size=300))
def test_garbage_is_no_checkpoint(tmp_path_factory, suffix, content):
    path = tmp_path_factory.mktemp("garbage") / f"official{suffix}"
    path.write_bytes(content)
    with pytest.raises((CheckpointError, UnsafeFile), match="official"):
        read_untrusted(path)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(suffix, cut, tmp_path):
    path = tmp_path / f"official{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(CheckpointError, match="Fetch or copy it again"):
        read_untrusted(path)
