"""A run and a study, made once; tests that damage something take a copy."""

import shutil
from pathlib import Path

import pytest

from tests.report.made_up import make_run
from tests.report.made_up_grids import make_study


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with `scenes/run`, `scenes/store` and `study`; not to be written to."""
    folder = tmp_path_factory.mktemp("report")
    make_run(folder / "scenes" / "run")
    make_study(folder / "study", failing="TrainingDiverged: three steps in a row were not finite.")
    return folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the run, with its store beside it."""
    return shutil.copytree(made / "scenes", tmp_path / "scenes") / "run"


@pytest.fixture
def study(made, tmp_path) -> Path:
    return shutil.copytree(made / "study", tmp_path / "study")
