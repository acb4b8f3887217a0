"""Fixtures of a small store."""

from pathlib import Path

import numpy as np
import pytest

from caev2.store.images import ImageSource
from tests.store.made_up import make_images, make_latents, write_store


@pytest.fixture
def images(tmp_path: Path) -> ImageSource:
    return make_images(tmp_path / "images")


@pytest.fixture
def latents() -> np.ndarray:
    return make_latents()


@pytest.fixture
def store_path(tmp_path: Path, images: ImageSource, latents: np.ndarray) -> Path:
    """A sealed store."""
    return write_store(tmp_path / "store", images, latents)
