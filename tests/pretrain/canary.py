"""Files that would create another one if anything in them ran."""

import os
import pickle
from pathlib import Path

import torch


class Canary:
    """Unpickled without care, makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile_files(canary: Path) -> dict[str, bytes]:
    """Checkpoints that call `os.mkdir` when read by plain pickle."""
    content = {"model": {"encoder.cls_token": torch.zeros(1)}, "args": Canary(canary)}
    files = {f"pickle of protocol {p}": pickle.dumps(content, protocol=p) for p in (0, 2, 4)}
    for name, new_format in (("zip archive", True), ("file of before torch 1.6", False)):
        path = canary.with_suffix(".tmp")
        torch.save(content, path, _use_new_zipfile_serialization=new_format)
        files[name] = path.read_bytes()
        path.unlink()
    return files
