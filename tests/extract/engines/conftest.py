"""Images, and the store that one undisturbed process makes of them with the demo's teacher."""

import dataclasses
from pathlib import Path

import pytest
import torch

from caev2.extract.recipes import DEMO
from caev2.extract.run import extract
from caev2.store.pixels.views import ViewSettings
from tests.made_up import make_photographs

RECIPE = dataclasses.replace(
    DEMO, views=ViewSettings(size_px=64), view_count=2, block_images=10, teacher_batch=16, workers=0
)
IMAGES = 75
UNITS = 8  # the last one is short


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small tasks for small clusters; and bits that are the same wherever the tests run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def photographs(tmp_path_factory) -> Path:
    return make_photographs(tmp_path_factory.mktemp("engines") / "images", IMAGES)


@pytest.fixture(scope="package")
def undisturbed(photographs, tmp_path_factory) -> dict[str, bytes]:
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    extract(photographs, store, RECIPE)
    return files_of(store)
