"""A CLIP small enough for tests, in every kind of file that people have."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import open_clip
import pytest

ROOT = Path(__file__).parents[2]
SMALL = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}


def load_example(name: str) -> ModuleType:
    """An example as a module: examples are programs, not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_random_clip() -> ModuleType:
    return load_example("make_random_clip")


@pytest.fixture(scope="session")
def small_clip(make_random_clip):
    """The model itself, as open_clip computes it, in OpenAI's mixed precision."""
    return make_random_clip.random_clip(SMALL, seed=3)


@pytest.fixture(scope="session")
def small_files(make_random_clip, small_clip, tmp_path_factory):
    """The same CLIP as a TorchScript archive, as a state dict, and as safetensors; none has a telling suffix."""
    folder = tmp_path_factory.mktemp("small-clip")
    files = SimpleNamespace()
    for kind in ("torchscript", "torch", "safetensors"):
        path = folder / f"{kind}.weights"
        make_random_clip.write_clip(small_clip, path, kind)
        setattr(files, kind, path)
    return files


@pytest.fixture(scope="session")
def small_architecture(tmp_path_factory) -> str:
    """The small CLIP's name in open_clip, where it exists with and without quick GELU."""
    folder = tmp_path_factory.mktemp("architectures")
    for name, quick in (("Small-16", False), ("Small-16-quickgelu", True)):
        (folder / f"{name}.json").write_text(json.dumps({**SMALL, "quick_gelu": quick}))
    open_clip.add_model_config(folder)
    return "Small-16-quickgelu"
