import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from caev2.errors import TeacherError, UnsafeFile
from caev2.extract.teachers.weights import read_tower, sniff
from tests.extract.canary import Canary, call

WGET_LOG = """--2026-03-01 10:00:00--  https://example.org/clip/ViT-B-16.pt
Resolving example.org (example.org)... 192.0.2.1
HTTP request sent, awaiting response... 200 OK
Saving to: 'ViT-B-16.pt'
     0K .......... .......... 100% 12.3M=29s
"""


def test_what_a_file_is_its_content_says(small_files):
    assert {kind: sniff(path) for kind, path in vars(small_files).items()} == {
        kind: kind for kind in ("torchscript", "torch", "safetensors")
    }


def test_the_three_kinds_hold_the_same_tower(small_files):
    towers = [read_tower(path).weights for path in vars(small_files).values()]
    for tower in towers:
        assert tower.keys() == towers[0].keys()
        assert all(torch.equal(tower[name].float(), towers[0][name].float()) for name in tower)
    assert "conv1.weight" in towers[0]


def test_only_files_that_show_it_say_which_gelu(small_files, tmp_path):
    assert read_tower(small_files.torchscript).quick_gelu is True
    assert read_tower(small_files.torch).quick_gelu is True  # OpenAI's buffers are in it
    assert read_tower(small_files.safetensors).quick_gelu is None


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_checkpoints_of_training_runs_are_unwrapped(wrapper, small_files, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in load_file(small_files.safetensors).items()}
    torch.save({"epoch": 32, "name": "run", wrapper: state, "optimizer": {}}, tmp_path / "epoch_32.pt")
    found, expected = (
        read_tower(tmp_path / "epoch_32.pt").weights,
        read_tower(small_files.safetensors).weights,
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_files_from_before_torch_1_6_are_read(small_files, tmp_path):
    state = load_file(small_files.safetensors)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert (tmp_path / "old.pt").read_bytes()[:1] == b"\x80"
    assert torch.equal(read_tower(tmp_path / "old.pt").weights["proj"], state["visual.proj"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WGET_LOG.encode(), "log of a download.*capital `wget -O FILE URL`"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"<html lang=en>", "web page"),
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"weights are at the other place", "text that begins with 'weights are at"),
        (bytes(range(256)) * 9, "neither a TorchScript archive, nor a state dict, nor safetensors"),
        (b"\x93NUMPY\x01\x00", "neither"),
        (b"PK\x03\x04" + b"\x00" * 600, "ends before it is complete"),
    ],
    ids=["log", "page", "page 2", "empty", "lfs", "text", "binary", "numpy", "zip"],
)
def test_what_is_no_weights_is_named(content, message, tmp_path):
    (tmp_path / "ViT-B-16.pt").write_bytes(content)
    with pytest.raises(TeacherError, match=message):
        read_tower(tmp_path / "ViT-B-16.pt")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(TeacherError, match=r"absent\.pt: No such file"):
        read_tower(tmp_path / "absent.pt")
    with pytest.raises(TeacherError, match="Is a directory"):
        read_tower(tmp_path)


def test_a_zip_that_torch_did_not_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(TeacherError, match="not one that torch wrote"):
        read_tower(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["torchscript", "torch", "safetensors"])
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(kind, share, small_files, tmp_path_factory):
    whole = getattr(small_files, kind).read_bytes()
    path = tmp_path_factory.getbasetemp() / "truncated.pt"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TeacherError, match=r"truncated\.pt"):
        read_tower(path)


@given(share=st.floats(0, 0.999))
def test_a_truncated_file_of_the_old_kind_is_refused(share, old_bytes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "truncated-old.pt"
    path.write_bytes(old_bytes[: int(share * len(old_bytes))])
    with pytest.raises(TeacherError, match=r"truncated-old\.pt"):
        read_tower(path)


@pytest.fixture(scope="module")
def old_bytes(small_files, tmp_path_factory):
    path = tmp_path_factory.mktemp("old") / "old.pt"
    torch.save(load_file(small_files.safetensors), path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_a_text_tower_alone_is_no_teacher(small_files, tmp_path):
    state = load_file(small_files.safetensors)
    text = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
    save_file(text, tmp_path / "text.safetensors")
    torch.save(text, tmp_path / "text.pt")
    for name in ("text.safetensors", "text.pt"):
        with pytest.raises(TeacherError, match=r"no image tower.*begins with 'visual\.'"):
            read_tower(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(3)], ids=["list", "string", "tensor"])
def test_a_file_that_holds_no_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(TeacherError, match="not a state dict"):
        read_tower(tmp_path / "a.pt")


def test_weights_that_are_no_floating_point_numbers_are_refused(tmp_path):
    save_file({"visual.proj": torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "a.safetensors")
    with pytest.raises(TeacherError, match=r"visual\.proj as torch\.int8"):
        read_tower(tmp_path / "a.safetensors")


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_runs_nothing(protocol, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "clip.pt"
    path.write_bytes(pickle.dumps(Canary(canary), protocol=protocol))
    # protocols 0 and 1 have no magic byte: such a file is not even tried
    with pytest.raises(
        UnsafeFile if protocol >= 2 else TeacherError, match=r"nothing of it was run|no teacher weights"
    ):
        read_tower(path)
    assert not canary.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("content", [lambda evil: evil, lambda evil: {"visual.proj": evil}], ids=["root", "inside"])
def test_a_state_dict_with_a_call_in_it_runs_nothing(zipped, content, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "clip.pt"
    torch.save(content(Canary(canary)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFile, match=r"asks for (posix|nt|os)\.mkdir.*nothing of it was run"):
        read_tower(path)
    assert not canary.exists()


def test_an_archive_with_a_call_in_it_runs_nothing(small_files, tmp_path):
    """A real archive whose pickle was replaced: it is read by the restricted reader, not by torch."""
    canary, path = tmp_path / "canary", tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(small_files.torchscript) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            evil = member.filename.endswith("data.pkl")
            target.writestr(member, call("os", "mkdir", str(canary)) if evil else source.read(member))
    with pytest.raises(UnsafeFile, match=r"os\.mkdir"):
        read_tower(path)
    assert not canary.exists()
