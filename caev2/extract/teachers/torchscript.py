"""Reads the weights out of a TorchScript archive without running anything in it.

OpenAI publishes CLIP as TorchScript: a zip whose `data.pkl` is a pickle of module objects and whose `data/`
holds the storages. `torch.jit.load` would compile and keep the code next to it, and a pickle can name any
function of Python. So the pickle is read here with every name it may mention listed below; `__torch__.*`
classes become inert objects, and the only thing ever built is a tensor over bytes of the archive. Everything
else is `UnsafeFile`.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from caev2.errors import TeacherError, UnsafeFile

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What torch/csrc/jit/serialization/pickler.cpp writes besides tensors. None of it carries weights.
_IGNORED = {
    ("collections", "OrderedDict"),
    ("torch", "device"),
    ("torch.jit._pickle", "build_boollist"),
    ("torch.jit._pickle", "build_doublelist"),
    ("torch.jit._pickle", "build_intlist"),
    ("torch.jit._pickle", "build_tensorlist"),
    ("torch.jit._pickle", "restore_type_tag"),
}
# What zipfile, pickle and torch raise over bytes that are not what they should be.
DAMAGED = (
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    pickle.UnpicklingError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
_MODULES_DEEP = 64  # a tree of modules this deep is a cycle


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptArchive:
    """What is of use in a TorchScript archive."""

    tensors: dict[str, Tensor]
    """Parameters and buffers by their state-dict name."""
    classes: frozenset[str]
    """Names of the module classes, without the mangled module path: `QuickGELU`."""


class _Frozen(type):
    """A pickle may set attributes on any object it holds, classes included; not on these."""

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise UnsafeFile(f"The pickle tries to set {name!r} on a class.")


class _Module(metaclass=_Frozen):
    """Stands for an object of any class that the archive names; keeps its state, does nothing."""

    __slots__ = ("state",)

    def __new__(cls, *_arguments: Any):
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True, slots=True)
class _Storage:
    member: str
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _StoredTensor:
    """A tensor as the pickle describes it; its bytes are read only if it is wanted."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Ignored(metaclass=_Frozen):
    """Stands for a function that makes something without weights."""

    __slots__ = ()

    def __call__(self, *_arguments: Any) -> None:
        return None


class _RebuildTensor(metaclass=_Frozen):
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> _StoredTensor:
        whole = all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
        if not isinstance(storage, _Storage) or not whole or len(size) != len(stride):
            raise ValueError("a tensor that is not described by a storage, an offset, sizes and strides")
        return _StoredTensor(storage, offset, tuple(size), tuple(stride))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path):
        super().__init__(file)
        self._path = path
        self.classes: set[str] = set()

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "__torch__" or module_name.startswith("__torch__."):
            self.classes.add(global_name)
            return _Module
        if module_name == "torch" and global_name in _STORAGE_TYPES:
            return _STORAGE_TYPES[global_name]
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module_name, global_name) in _IGNORED:
            return _Ignored()
        raise UnsafeFile(
            f"{self._path} asks for {module_name}.{global_name}, which no weights of a teacher need: "
            "nothing of it was run. Fetch the file again from its publisher."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, _count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("a persistent id that is no storage")
        return _Storage(f"data/{key}", dtype)


def read_archive(path: Path, prefix: str = "") -> ScriptArchive:
    """Read the tensors whose state-dict name begins with `prefix`.

    Raises:
        UnsafeFile: The pickle names something that weights do not need.
        TeacherError: The archive is damaged or was not written by `torch.jit.save`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path, prefix)
    except DAMAGED as problem:
        raise TeacherError(
            f"{path} is a TorchScript archive that cannot be read ({problem}). Fetch it again and compare "
            "its sha256 with the published one."
        ) from problem


def _read(archive: zipfile.ZipFile, path: Path, prefix: str) -> ScriptArchive:
    root = archive_root(archive)
    if root + "byteorder" in archive.namelist() and _read_member(archive, root + "byteorder") != b"little":
        raise ValueError("its byte order is not little-endian")
    unpickler = _Unpickler(io.BytesIO(_read_member(archive, root + "data.pkl")), path)
    module = unpickler.load()
    named = {name: tensor for name, tensor in _walk(module, "") if name.startswith(prefix)}
    tensors = {name: _load(archive, root, tensor) for name, tensor in named.items()}
    return ScriptArchive(tensors=tensors, classes=frozenset(unpickler.classes))


def archive_root(archive: zipfile.ZipFile) -> str:
    """The folder that `torch.save` and `torch.jit.save` put everything into, with its slash."""
    roots = [
        name.removesuffix("data.pkl")
        for name in archive.namelist()
        if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(roots) != 1:
        raise ValueError(f"it has {len(roots)} members called data.pkl in a top folder instead of one")
    return roots[0]


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of a member that torch stores as it is; a compressed one could be a bomb."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its member {name} is compressed, which torch never does")
    return archive.read(name)


def _walk(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, _StoredTensor]]:
    """Tensors below a module, by the names `state_dict()` would give them."""
    if depth > _MODULES_DEEP:
        raise ValueError("its modules contain each other")
    if isinstance(value, _StoredTensor):
        yield name, value
    elif isinstance(value, _Module) and isinstance(value.state, dict):
        for child, below in value.state.items():
            yield from _walk(below, f"{name}.{child}" if name else str(child), depth + 1)


def _load(archive: zipfile.ZipFile, root: str, tensor: _StoredTensor) -> Tensor:
    raw = bytearray(_read_member(archive, root + tensor.storage.member))
    return torch.frombuffer(raw, dtype=tensor.storage.dtype).as_strided(tensor.size, tensor.stride, tensor.offset)
