"""The built-in study in its quick form: what its stores hold, and that it goes on where it was interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest

from caev2.demo.study import NO_JITTER, QUICK, VIEWS, StudyResult, make_study
from caev2.errors import OutputError, StoreMismatch
from caev2.progress import Silent
from caev2.store.layout import VIEW_FIELDS
from caev2.store.reader import Store
from caev2.store.rewriting.convert import convert
from tests.commands.invoking import caev2

IMAGES = list(range(QUICK.train_scenes))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> StudyResult:
    return make_study(tmp_path_factory.mktemp("study"), quick=True)


def digests(study: Path) -> dict[str, str | None]:
    return {store.name: Store(store).manifest.root_digest for store in study.iterdir()}


def test_the_stores_hold_the_targets_and_codecs_that_their_names_say(made):
    found = {one.name: (one.codec, one.targets, one.images, one.views) for one in made.stores}
    assert found == {
        "views": ("float16", ("projected", "post_norm", "block-4"), 64, 2),
        "no-jitter": ("float16", ("projected",), 64, 2),
        "views-int8": ("int8", ("projected",), 64, 2),
        "views-lloyd4": ("lloyd4", ("projected",), 64, 2),
        "views-klt": ("klt", ("projected",), 64, 2),
        "views-pq": ("pq", ("projected",), 64, 2),
    }
    assert {path.name for path in made.study.iterdir()} == set(found)


def test_the_store_without_jitter_has_the_crops_of_the_other_in_their_own_colours(made):
    views, still = Store(made.study / VIEWS), Store(made.study / NO_JITTER)
    for view in range(QUICK.views):
        for field in ("box", "flip", "order"):
            assert np.array_equal(views.view_values(field, view, IMAGES), still.view_values(field, view, IMAGES))
        assert (still.view_values("factors", view, IMAGES) == 1).all()
        assert (views.view_values("factors", view, IMAGES) != 1).all()
        rows, others = (store.read_stored("projected", view, IMAGES) for store in (views, still))
        assert (rows != others).any(axis=(1, 2)).all()


@pytest.mark.parametrize(("name", "least"), [("views-int8", 0.9999), ("views-lloyd4", 0.99), ("views-klt", 0.9)])
def test_a_codec_store_has_the_views_of_the_first_and_latents_near_its_own(made, name, least):
    views, coded = Store(made.study / VIEWS), Store(made.study / name)
    for field in VIEW_FIELDS:
        assert np.array_equal(views.view_values(field, 1, IMAGES), coded.view_values(field, 1, IMAGES))
    assert [views.read_crop(1, image) for image in IMAGES] == [coded.read_crop(1, image) for image in IMAGES]
    one, other = (store.read_rows("projected", 1, IMAGES).astype(np.float64) for store in (views, coded))
    cosines = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    assert cosines.mean() > least


def test_the_sizes_are_those_of_the_files(made):
    for one in made.stores:
        files = [path for path in (made.study / one.name).rglob("*") if path.is_file()]
        assert one.bytes == sum(path.stat().st_size for path in files)


class Stopping(Silent):
    """Somebody presses Ctrl-C while the first rows of a store are computed."""

    def __init__(self, name: str):
        self._name, self._begun = name, False

    def say(self, message: str) -> None:
        self._begun = self._begun or message == f"study: {self._name}"

    def advance(self, items: int, **figures: float | int) -> None:
        if self._begun:
            raise KeyboardInterrupt


def test_a_study_that_is_interrupted_in_every_store_ends_in_the_same_stores(made, tmp_path):
    for store in made.stores:
        with pytest.raises(KeyboardInterrupt):
            make_study(tmp_path, quick=True, progress=Stopping(store.name))
    make_study(tmp_path, quick=True)
    assert digests(tmp_path / "study") == digests(made.study)


def test_a_second_call_writes_nothing_into_the_stores(made):
    files = [path for path in made.study.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = make_study(made.study.parent, quick=True)
    assert again == made
    assert before == {path: path.stat().st_mtime_ns for path in made.study.rglob("*") if path.is_file()}


def test_another_seed_in_the_same_folder_is_refused(made):
    before = digests(made.study)
    with pytest.raises(OutputError, match="choose an empty folder"):
        make_study(made.study.parent, quick=True, seed=1)
    assert digests(made.study) == before


def test_a_target_that_a_store_does_not_hold_is_not_converted(made, tmp_path):
    with pytest.raises(StoreMismatch, match=r"block-4.*asked for were \['blocks-4'\]"):
        convert(made.study / VIEWS, tmp_path / "out", codec="int8", targets=("blocks-4",))
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_to_do_next(made):
    out = made.study.parent
    found = json.loads(caev2("demo", "--study", "--quick", "--out", out, "--json", "--quiet").stdout)
    assert found["next_command"] == (
        f"caev2 ablate {out}/study all {out}/ablations --quick --images {out}/scenes --jobs 2"
    )
    assert [one["name"] for one in found["stores"]] == [one.name for one in made.stores]
    printed = caev2("demo", "--study", "--quick", "--out", out, "--quiet").stdout
    assert all(one.name in printed for one in made.stores)
    assert found["next_command"] in printed.replace("\n", " ")
