import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import TeacherError, UnsafeFile
from caev2.extract.teachers.torchscript import read_archive
from tests.extract.canary import Canary, call, fires


def write_archive(path, data, constants=b"\x80\x02).", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/data.pkl", data, compression)
        archive.writestr("clip/constants.pkl", constants)
        archive.writestr("clip/version", "3\n")
    return path


def tensor_pickle(size="K\x04\x85", stride="K\x01\x85", storage="HalfStorage"):
    """A module with one tensor `weight` over the storage `0`, as torch's C++ pickler writes it."""
    text = (
        "\x80\x02c__torch__.clip\nModule\n)\x81}(X\x06\x00\x00\x00weight"
        f"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n{storage}\n"
        f"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00{size}{stride}\x89ccollections\nOrderedDict\n)RtRub."
    )
    return text.encode("latin-1")


def write_tensor(path, data, values=(1.0, 2.0, 3.0, 4.0)):
    write_archive(path, data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("clip/data/0", torch.tensor(values, dtype=torch.float16).numpy().tobytes())
    return path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_reader_finds_what_torch_itself_finds(small_files):
    expected = torch.jit.load(small_files.torchscript).state_dict()
    found = read_archive(small_files.torchscript).tensors
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_openais_mixed_precision_is_kept(small_files):
    tensors = read_archive(small_files.torchscript, "visual.").tensors
    assert tensors["visual.conv1.weight"].dtype == torch.float16
    assert tensors["visual.ln_post.weight"].dtype == torch.float32
    assert all(name.startswith("visual.") for name in tensors)


def test_the_archive_names_its_activation(small_files):
    assert "QuickGELU" in read_archive(small_files.torchscript).classes


def test_a_tensor_is_built_from_its_description(tmp_path):
    path = write_tensor(tmp_path / "a.pt", tensor_pickle(size="K\x02K\x02\x86", stride="K\x01K\x02\x86"))
    assert read_archive(path).tensors["weight"].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "mkdir"),
        ("posix", "mkdir"),
        ("pathlib", "os.mkdir"),
        ("torch.jit._pickle", "torch.os.mkdir"),
        ("torch._utils", "torch.os.mkdir"),
    ],
)
def test_an_archive_that_asks_for_a_function_is_refused_and_runs_nothing(tmp_path, module, name):
    canary = tmp_path / "canary"
    path = write_archive(tmp_path / "evil.pt", call(module, name, str(canary)))
    with pytest.raises(UnsafeFile, match=rf"{module}\.{name}.*nothing of it was run"):
        read_archive(path)
    assert not canary.exists()


def test_the_canary_fires_where_nothing_guards_it(tmp_path):
    canary = tmp_path / "canary"
    assert fires(call("os", "mkdir", str(canary)), canary)
    assert fires(pickle.dumps(Canary(canary)), canary)


@pytest.mark.parametrize("module", ["__torch__os", "__torch", "_torch__.os", "torch", "torch.storage", "builtins"])
@pytest.mark.parametrize("name", ["load", "eval", "system", "_load_from_bytes"])
def test_no_name_but_the_listed_ones_is_looked_up(tmp_path, module, name):
    path = write_archive(tmp_path / "evil.pt", call(module, name, "1"))
    with pytest.raises(UnsafeFile):
        read_archive(path)


def test_a_class_of_the_archive_is_inert(tmp_path):
    canary = tmp_path / "canary"
    path = write_archive(tmp_path / "a.pt", call("__torch__.os", "mkdir", str(canary)))
    with pytest.raises(TeacherError):
        read_archive(path)  # an object without state is no module
    assert not canary.exists()


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD with a (None, slots) state sets attributes on whatever lies on the stack: here, on a class."""
    slots = pickle.NONE + pickle.EMPTY_DICT + b"X\x0c\x00\x00\x00__setstate__" + pickle.NONE + b"s\x86"
    for target in (b"c__torch__.m\nM\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nHalfStorage\n"):
        path = write_archive(tmp_path / "evil.pt", b"\x80\x02" + target + slots + b"b.")
        with pytest.raises((UnsafeFile, TeacherError)):
            read_archive(path)
    good = write_tensor(tmp_path / "good.pt", tensor_pickle())
    assert read_archive(good).tensors["weight"].tolist() == [1, 2, 3, 4]


def test_constants_and_code_are_never_read(tmp_path):
    canary = tmp_path / "canary"
    path = write_tensor(tmp_path / "a.pt", tensor_pickle())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("clip/code/__torch__/clip.py", f"import os; os.mkdir({str(canary)!r})")
        archive.writestr("clip/extra/constants.pkl", call("os", "mkdir", str(canary)))
    assert read_archive(path).tensors["weight"].tolist() == [1, 2, 3, 4]
    assert not canary.exists()


@pytest.mark.parametrize(
    "data",
    [
        tensor_pickle(size="K\x05\x85"),
        tensor_pickle(stride="K\x02\x85"),
        tensor_pickle(size="K\x02K\x02\x86"),
        tensor_pickle(size="J\xff\xff\xff\xff\x85"),
        tensor_pickle(storage="DoubleStorage"),
        tensor_pickle()[:-1],
        b"",
        b"\x80\x02.",
        b"\x80\x02c__torch__.m\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",
    ],
    ids=["beyond", "stride", "dimensions", "negative", "type", "cut", "empty", "nothing", "cycle"],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, data):
    path = write_tensor(tmp_path / "a.pt", data)
    with pytest.raises(TeacherError, match="cannot be read"):
        read_archive(path)


def test_a_compressed_member_is_refused(tmp_path):
    path = write_archive(tmp_path / "a.pt", tensor_pickle(), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TeacherError, match="compressed"):
        read_archive(path)


@pytest.fixture(scope="module")
def tiny_bytes(tmp_path_factory):
    return write_tensor(tmp_path_factory.mktemp("tiny") / "a.pt", tensor_pickle()).read_bytes()


@given(data=st.data())
def test_no_damage_goes_unnoticed(data, tiny_bytes, tmp_path_factory):
    """Whatever byte is wrong or missing: the same tensor, or a refusal."""
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    place = data.draw(st.integers(0, len(tiny_bytes) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(tiny_bytes[:place])
    else:
        value = data.draw(st.integers(0, 255))
        path.write_bytes(tiny_bytes[:place] + bytes([value]) + tiny_bytes[place + 1 :])
    try:
        tensors = read_archive(path).tensors
    except (TeacherError, UnsafeFile):
        return
    assert tensors["weight"].tolist() == [1, 2, 3, 4]
