"""A study of small stores, made once by the demo's teacher."""

import dataclasses
from pathlib import Path

import pytest

from caev2.extract.recipes import DEMO
from caev2.extract.run import extract
from caev2.store.pixels.views import ViewSettings
from tests.ablate.studying import make_labelled


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with `images`, train and val, and a `study` of two stores; not to be written to."""
    folder = tmp_path_factory.mktemp("study")
    make_labelled(folder / "images")
    recipe = dataclasses.replace(DEMO, view_count=2, block_images=8, teacher_batch=8, taps=("projected", "post_norm"))
    extract(folder / "images", folder / "study" / "views", recipe)
    still = dataclasses.replace(recipe, views=dataclasses.replace(DEMO.views, jitter=None))
    assert isinstance(still.views, ViewSettings)
    extract(folder / "images", folder / "study" / "still", still)
    return folder
