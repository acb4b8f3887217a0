"""Training with a live teacher, and what is compared of two runs."""

from pathlib import Path

import numpy as np

from caev2.extract.recipes import DEMO as EXTRACT_DEMO
from caev2.online.fresh import Fresh
from caev2.online.replay import Replay
from caev2.pretrain.run import PretrainResult, teach
from caev2.pretrain.telling.log import read_log
from caev2.recipe import override
from caev2.store.reader import Store
from tests.made_up import EXTRACT, PRETRAIN, PatchMeans


def replay(data: Path, run: Path, recipe=PRETRAIN, *, teacher=None, store="store", **options) -> PretrainResult:
    lesson = Replay(store=Store(data / store), recipe=recipe, images=data / "images", teacher=teacher or PatchMeans())
    return teach(lesson, run, **options)


def fresh(data: Path, run: Path, recipe=PRETRAIN, *, teacher=None, views=EXTRACT, left_out=(), **options):
    lesson = Fresh(
        images=data / "images", recipe=recipe, views=views, teacher=teacher or PatchMeans(), left_out=left_out
    )
    return teach(lesson, run, **options)


def losses_of(run: Path) -> np.ndarray:
    """Of every step, which takes `log_steps=1`."""
    records = read_log(run)
    assert [record["step"] for record in records] == list(range(len(records)))
    return np.array([record["loss"] for record in records])


def relative_difference(one: Path, other: Path) -> np.ndarray:
    first, second = losses_of(one), losses_of(other)
    assert first.shape == second.shape
    return np.abs(first - second) / np.abs(first)


def demo_views(codec: str):
    return override(EXTRACT_DEMO, [f"codec={codec}"])
