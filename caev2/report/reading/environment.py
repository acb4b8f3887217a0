"""The machine that makes the page: versions and hardware, and nothing that names it or its owner."""

import importlib.metadata
import os
import platform
from pathlib import Path

from caev2 import __version__

_PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "zarr", "pyarrow", "pillow")


def describe_machine() -> tuple[tuple[str, str], ...]:
    """Names and values, in the order of the page."""
    cores = len(os.sched_getaffinity(0))
    return (
        ("caev2", __version__),
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in _PACKAGES),
        ("system", f"{platform.system()} on {platform.machine()}"),
        ("CPU", f"{_cpu()}, {cores} core{'s' if cores > 1 else ''}"),
        ("GPU", _gpus()),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
