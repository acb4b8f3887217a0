"""Stores grow by files: more views of the same spec, more targets over the same views; what was there stays."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from caev2.errors import StoreIncomplete, StoreMismatch
from caev2.extract.extend import extend
from caev2.extract.run import extract
from caev2.pretrain.run import pretrain
from caev2.store.codecs.quality import QualityFloor
from caev2.store.images import open_images
from caev2.store.pixels.crops import StoredCrops
from caev2.store.reader import Store
from caev2.store.rewriting import graft as graft_module
from caev2.store.rewriting.graft import graft
from caev2.store.verify import verify_store
from tests.made_up import EXTRACT, PatchMeans, make_photographs
from tests.made_up_pretrain import PRETRAIN

NO_FLOOR = QualityFloor(relative_error=10.0, centred_cosine_p1=-1.0)
RECIPES = {
    "float16": EXTRACT,
    "int8": dataclasses.replace(EXTRACT, codec="int8", floor=NO_FLOOR),
    "jpeg": dataclasses.replace(EXTRACT, crops="jpeg"),
}


class OtherMeans(PatchMeans):
    """Another teacher: the same latents, turned round."""

    def __init__(self):
        super().__init__()
        self.description = dataclasses.replace(self.description, name="other-means", sha256="1" * 64)

    def tokens(self, images, taps):
        return {tap: -tokens for tap, tokens in super().tokens(images, taps).items()}


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def load(recorded):
    return {"patch-means": PatchMeans, "other-means": OtherMeans}[recorded["name"]]()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `images`, one of which is none, and stores of two views."""
    folder = tmp_path_factory.mktemp("made")
    images = make_photographs(folder / "images", 20)
    (images / "class-0" / "004.png").write_bytes(b"no image")
    for name, recipe in RECIPES.items():
        extract(images, folder / name, recipe, teacher=PatchMeans())
    other = dataclasses.replace(EXTRACT, target_prefix="other-")
    extract(images, folder / "part", other, teacher=OtherMeans())
    return folder


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_extended_store_holds_what_extracting_all_views_at_once_gives(made, tmp_path, name):
    store = shutil.copytree(made / name, tmp_path / "store")
    before = files_of(store)
    grown = extend(store, open_images(made / "images"), 5, load=load, workers=0)
    assert (grown.views, grown.targets) == (5, ("projected",))
    assert not list(tmp_path.glob("*.growing*"))
    assert verify_store(Store(store)).problems == ()
    after = files_of(store)
    assert all(after[path] == data for path, data in before.items() if "/c/" in path or path.startswith("crops/data"))
    whole = tmp_path / "whole"
    extract(made / "images", whole, dataclasses.replace(RECIPES[name], view_count=5), teacher=PatchMeans())
    one, other = Store(store), Store(whole)
    assert one.manifest.spec == other.manifest.spec
    valid = one.valid_images
    for view in range(5):
        # the teacher's batches were cut elsewhere: their last bits may differ
        np.testing.assert_allclose(
            one.read_rows("projected", view, valid), other.read_rows("projected", view, valid), atol=1e-3
        )
        for image in map(int, valid):
            assert one.view(view, image) == other.view(view, image)
            assert one.view_value("crop_hash", view, image) == other.view_value("crop_hash", view, image)
    if name == "jpeg":
        assert np.array_equal(StoredCrops(one).crop(4, 0), StoredCrops(other).crop(4, 0))


def test_a_target_of_another_teacher_lies_over_the_same_views(made, tmp_path):
    store = shutil.copytree(made / "float16", tmp_path / "store")
    grown = graft(store, made / "part")
    assert grown.targets == ("other-projected", "projected")
    assert verify_store(Store(store)).problems == ()
    opened, rows = Store(store), Store(store).valid_images
    for view in range(2):
        assert np.array_equal(
            opened.read_rows("other-projected", view, rows), -opened.read_rows("projected", view, rows)
        )
    recipe = dataclasses.replace(PRETRAIN, target="other-projected")
    assert pretrain(store, tmp_path / "run", recipe, images=made / "images").steps > 0
    extend(store, open_images(made / "images"), 3, load=load, workers=0)
    assert verify_store(Store(store)).problems == ()
    opened = Store(store)
    assert np.array_equal(opened.read_rows("other-projected", 2, rows), -opened.read_rows("projected", 2, rows))
    assert files_of(made / "part")  # a part is left as it is


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_graft_that_was_interrupted_is_finished_by_the_same_call(made, tmp_path, monkeypatch, after):
    for name in ("whole", "store"):
        shutil.copytree(made / "float16", tmp_path / name)
    graft(tmp_path / "whole", made / "part")
    inner, left = graft_module._join_block, [after]

    def failing(*arguments):
        if left[0] == 0:
            raise ZeroDivisionError
        left[0] -= 1
        inner(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(graft_module, "_join_block", failing)
        with pytest.raises(ZeroDivisionError):
            graft(tmp_path / "store", made / "part")
    with pytest.raises(StoreIncomplete):
        Store(tmp_path / "store")
    graft(tmp_path / "store", made / "part")
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
    graft(tmp_path / "store", made / "part")  # once more changes nothing
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_an_extension_that_was_interrupted_leaves_the_store_usable_and_goes_on(made, tmp_path):
    store = shutil.copytree(made / "float16", tmp_path / "store")
    before = files_of(store)

    class Dies(PatchMeans):
        left = 6

        def tokens(self, images, taps):
            self.left -= 1
            if self.left < 0:
                raise ZeroDivisionError
            return super().tokens(images, taps)

    with pytest.raises(ZeroDivisionError):
        extend(store, open_images(made / "images"), 4, load=lambda recorded: Dies(), workers=0)
    assert files_of(store) == before
    assert extend(store, open_images(made / "images"), 4, load=load, workers=0).views == 4
    assert verify_store(Store(store)).problems == ()


def test_where_the_disk_cannot_link_files_are_copied(made, tmp_path, monkeypatch):
    for name in ("linked", "copied"):
        shutil.copytree(made / "float16", tmp_path / name)
    graft(tmp_path / "linked", made / "part")

    def refuse(*_):
        raise OSError

    monkeypatch.setattr(graft_module.os, "link", refuse)
    graft(tmp_path / "copied", made / "part")
    assert files_of(tmp_path / "linked") == files_of(tmp_path / "copied")


def unfitting(made: Path, tmp_path: Path, name: str) -> Path:
    images, recipe, teacher = made / "images", EXTRACT, PatchMeans()
    if name == "images":
        images = shutil.copytree(images, tmp_path / "images")
        shutil.copy(images / "class-1/001.png", images / "class-1/003.png")
    elif name == "seed":
        recipe = dataclasses.replace(recipe, views=dataclasses.replace(recipe.views, seed=1))
    elif name == "first":
        recipe = dataclasses.replace(recipe, first_view=3)
    elif name == "teacher":
        recipe, teacher = dataclasses.replace(recipe, first_view=2), OtherMeans()
    elif name == "views":
        recipe, teacher = dataclasses.replace(recipe, view_count=3, target_prefix="other-"), OtherMeans()
    elif name == "name":
        teacher = OtherMeans()
    extract(images, tmp_path / "part", recipe, teacher=teacher)
    return tmp_path / "part"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "was extracted from other images .* the xxh3_128 of 'class-1/003.png' is"),
        ("seed", "its view settings is"),
        ("first", "its first view is 3, and not 2"),
        ("teacher", "its spec is"),
        ("views", "its number of views is 3, and not 2"),
        ("name", "have a target called 'projected'. .* --set target_prefix=\"other-\""),
    ],
)
def test_a_part_that_does_not_fit_is_refused_and_nothing_is_changed(made, tmp_path, name, message):
    store = shutil.copytree(made / "float16", tmp_path / "store")
    before = files_of(store)
    with pytest.raises(StoreMismatch, match=message):
        graft(store, unfitting(made, tmp_path, name))
    assert files_of(store) == before


def test_fewer_views_than_there_are_and_unfinished_parts_are_refused(made, tmp_path):
    store = shutil.copytree(made / "float16", tmp_path / "store")
    with pytest.raises(StoreMismatch, match="has 2 views already, 2 were asked for"):
        extend(store, open_images(made / "images"), 2, load=load)
    part = shutil.copytree(made / "part", tmp_path / "part")
    manifest = Store(part).manifest
    (part / "manifest.json").write_bytes(dataclasses.replace(manifest, state="building", root_digest=None).to_bytes())
    with pytest.raises(StoreIncomplete, match="is not sealed"):
        graft(store, part)
    assert verify_store(Store(store)).problems == ()


def test_a_run_on_the_first_views_does_not_see_the_others(made, tmp_path):
    """Prefix views: training on two of five views is training on a store of two."""
    store = shutil.copytree(made / "float16", tmp_path / "store")
    extend(store, open_images(made / "images"), 5, load=load, workers=0)
    from caev2.pretrain.weights.checkpoint import latest_checkpoint, read_checkpoint

    recipe = dataclasses.replace(PRETRAIN, views=2)
    pretrain(made / "float16", tmp_path / "small", recipe, images=made / "images")
    pretrain(store, tmp_path / "large", recipe, images=made / "images")
    runs = (tmp_path / "small", tmp_path / "large")
    first, second = (read_checkpoint(latest_checkpoint(run / "checkpoints").path)[0] for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
