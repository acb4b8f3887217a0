"""Reads a teacher's image tower out of a file of any of the three kinds people have.

What a file is, its content says, never its name: OpenAI's TorchScript archive, a state dict that `torch.save`
wrote, or safetensors. The image tower comes out in one naming: OpenAI's, which is also open_clip's, without
`visual.`; a file that holds a tower alone keeps its own.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from caev2.errors import TeacherError, UnsafeFile
from caev2.extract.teachers.torchscript import DAMAGED, archive_root, read_archive

_TOWER = "visual."
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_OPENAI_BUFFERS = {"input_resolution", "context_length", "vocab_size"}
_COUNTERS = ("num_batches_tracked", "relative_position_index")  # integers that no latent depends on
_SNIFFED_BYTES = 4096
_TEXT_BYTES = bytes(range(32, 127)) + b"\t\n\r\f\x1b" + bytes(range(128, 256))

Kind = Literal["torchscript", "torch", "safetensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerFile:
    """An image tower as it lies in a file."""

    path: Path
    weights: dict[str, Tensor]
    """OpenAI's names without `visual.`, on the CPU, in the file's own precision."""
    quick_gelu: bool | None
    """Which GELU the file says it was trained with, where it says so."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What a safetensors file says about itself."""


def read_tower(path: Path, prefix: str = _TOWER) -> TowerFile:
    """Read an image tower.

    Args:
        path: The file.
        prefix: What the names of its tensors begin with, and lose; empty for a file that holds nothing else.

    Raises:
        TeacherError: The file is missing, damaged, of no known kind, or holds no image tower.
        UnsafeFile: It asks to run code.
    """
    read = {"torchscript": _read_torchscript, "torch": _read_torch, "safetensors": _read_safetensors}
    tower = read[sniff(path)](path, prefix)
    for name, tensor in tower.weights.items():
        if not tensor.is_floating_point() or tensor.is_sparse or tensor.is_quantized:
            raise TeacherError(f"{path} holds {prefix}{name} as {tensor.dtype}, not as floating-point weights.")
    return tower


def sniff(path: Path) -> Kind:
    """What kind of weights a file is.

    Raises:
        TeacherError: It is none; the message says what it looks like instead.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
    except OSError as problem:
        raise TeacherError(
            f"No teacher weights can be read at {path}: {problem.strerror}. Give the right file after @."
        ) from None
    if head[:4] == b"PK\x03\x04":
        return _sniff_zip(path)
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80":  # the first opcode of every binary pickle; torch.save wrote such files before 1.6
        return "torch"
    raise TeacherError(f"{path} holds no teacher weights: {_describe(head)}")


def _sniff_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive_root(archive)
            return "torchscript" if root + "constants.pkl" in archive.namelist() else "torch"
    except zipfile.BadZipFile:
        size = path.stat().st_size
        raise TeacherError(
            f"{path} ends before it is complete, or is damaged: {size:,} bytes of a zip without a table of "
            "contents that can be read. Fetch it again."
        ) from None
    except DAMAGED as problem:
        raise TeacherError(f"{path} is a zip, but not one that torch wrote: {problem}.") from None


def _describe(head: bytes) -> str:
    """What a file that is no weights most likely is, and what to do."""
    if not head:
        return "it is empty. Fetch it again."
    if head.translate(None, delete=_TEXT_BYTES):
        return "it is neither a TorchScript archive, nor a state dict, nor safetensors."
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if re.match(r"<(!doctype|html|\?xml|head)", text, re.IGNORECASE):
        return "it is a web page. Fetch the file that the page links to."
    if text.startswith("version https://git-lfs"):
        return "it is a Git LFS pointer. Run `git lfs pull` where it came from."
    if re.search(r"^--\d{4}-\d\d-\d\d|^Resolving |HTTP request sent", text, re.MULTILINE):
        return (
            "it is the log of a download. `wget -o FILE` writes the log to FILE and the weights to the "
            "current folder: use that file, or fetch again with a capital `wget -O FILE URL`."
        )
    return f"it is text that begins with {text[:40]!r}."


def _read_torchscript(path: Path, prefix: str) -> TowerFile:
    archive = read_archive(path, prefix)
    # every archive that OpenAI published uses quick GELU, even if a repacked one no longer names the class
    quick_gelu = "QuickGELU" in archive.classes or "GELU" not in archive.classes
    return TowerFile(path=path, weights=_tower(archive.tensors, path, prefix), quick_gelu=quick_gelu)


def _read_torch(path: Path, prefix: str) -> TowerFile:
    names = _unwrap(_load_pickle(path), path)
    # only a state dict taken from OpenAI's own module has these buffers beside the weights
    quick_gelu = True if names.keys() >= _OPENAI_BUFFERS else None
    return TowerFile(path=path, weights=_tower(names, path, prefix), quick_gelu=quick_gelu)


def _load_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # that torch did not write the pickle, the refusal says
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as problem:
        raise _refusal(str(problem), path) from None
    except DAMAGED as problem:
        raise TeacherError(f"{path} is damaged: {_first_line(problem)}. Fetch it again.") from problem


def _refusal(message: str, path: Path) -> UnsafeFile | TeacherError:
    """What torch's restricted unpickler said, as an error of ours that names what the file asked for."""
    if found := re.search(r"GLOBAL ([\w.]+)", message):
        return UnsafeFile(
            f"{path} asks for {found[1]}, which no weights of a teacher need: nothing of it was run. "
            "Fetch the file again from its publisher."
        )
    if re.search(r"Unsupported|Can only|Only persistent_load", message):
        return UnsafeFile(
            f"{path} is a pickle with more in it than weights, not as torch.save writes it: nothing of it "
            "was run. Get the weights as safetensors, or as a state dict saved by torch.save."
        )
    return TeacherError(f"{path} is no state dict that can be read: {message.splitlines()[0].rstrip('.')}.")


def _first_line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(".")


def _unwrap(loaded: Any, path: Path) -> dict[str, Any]:
    """The state dict inside what `torch.save` was given: itself, or under one of the usual keys."""
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise TeacherError(f"{path} holds a {type(loaded).__name__}, not a state dict.")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def _read_safetensors(path: Path, prefix: str) -> TowerFile:
    try:
        with safe_open(path, framework="pt") as file:
            names = {name.removeprefix("module."): name for name in file.keys()}  # noqa: SIM118 (not a dict)
            chosen = {
                name: file.get_tensor(name_in_file) for name, name_in_file in names.items() if name.startswith(prefix)
            }
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as problem:
        raise TeacherError(f"{path} is a damaged safetensors file: {problem}. Fetch it again.") from None
    return TowerFile(path=path, weights=_tower(chosen or names, path, prefix), quick_gelu=None, metadata=metadata)


def _tower(names: Mapping[str, Any], path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors below the prefix, without it."""
    tower = {
        name.removeprefix(prefix): tensor
        for name, tensor in names.items()
        if name.startswith(prefix)
        and isinstance(tensor, Tensor)
        and name.removeprefix(prefix) not in _OPENAI_BUFFERS
        and not name.endswith(_COUNTERS)
    }
    if not tower:
        some = ", ".join(sorted(names)[:3]) or "nothing"
        raise TeacherError(
            f"{path} holds no image tower: no tensor's name begins with {prefix!r}; it has {some}. "
            "Give the file of a whole CLIP, or of its image tower in OpenAI's names."
        )
    return tower
