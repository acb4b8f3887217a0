"""A store to train beside, and the images that it was made from."""

from pathlib import Path

import pytest

from caev2.extract.run import extract
from tests.made_up import EXTRACT, PatchMeans, make_photographs


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with `images` and a sealed `store`; not to be written to."""
    folder = tmp_path_factory.mktemp("online")
    make_photographs(folder / "images", 20)
    extract(folder / "images", folder / "store", EXTRACT, teacher=PatchMeans())
    return folder
