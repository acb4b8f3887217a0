"""A store and a run, made once by the commands themselves."""

import shutil
from pathlib import Path

import pytest

from tests.commands.invoking import EXTRACT, PRETRAIN, caev2, make_images


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `images`, a sealed `store` and a finished `run`; not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    make_images(folder / "images")
    assert caev2("extract", folder / "images", folder / "store", *EXTRACT).exit_code == 0
    done = caev2("pretrain", folder / "store", folder / "run", "--images", folder / "images", *PRETRAIN)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def images(made) -> Path:
    return made / "images"


@pytest.fixture
def store(made, tmp_path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(made / "store", tmp_path / "store")


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "run")
