"""Batches: cut in the same places whoever computes them, and smaller ones where memory is short."""

import dataclasses

import numpy as np
import pytest
import torch

from caev2.errors import TeacherError
from caev2.extract.latents import Batches
from caev2.extract.run import extract
from caev2.progress import Silent
from caev2.store.describe import describe_store
from caev2.store.reader import Store
from caev2.store.records import read_record
from caev2.store.rewriting.convert import convert
from tests.made_up import EXTRACT, SIZE_PX, PatchMeans, make_photographs


class Warnings(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


class Cramped(PatchMeans):
    """A teacher whose device has memory for so many views from its batch number `after` on."""

    def __init__(self, room: int, after: int = 0, words: str | None = None):
        super().__init__()
        self._room, self._after, self._words = room, after, words

    def tokens(self, images, taps):
        self._after -= 1
        if self._after < 0 and len(images) > self._room:
            raise torch.OutOfMemoryError("no room") if self._words is None else RuntimeError(self._words)
        return super().tokens(images, taps)


def crops(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(count)
    shape = (SIZE_PX, SIZE_PX, 3)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=random) for _ in range(count)]


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_batch_in_pieces_has_the_latents_of_a_whole_one(room, count):
    whole = Batches(PatchMeans(), ["projected"], 8, "cpu").forward(crops(count))
    pieces = Batches(Cramped(room), ["projected"], 8, "cpu").forward(crops(count))
    assert pieces.views_at_once == max(size for size in (1, 2, 4, 8) if size <= room)
    assert pieces.rows["projected"].shape == whole.rows["projected"].shape
    np.testing.assert_allclose(pieces.rows["projected"], whole.rows["projected"], rtol=2e-3)
    assert pieces.storable.tolist() == [True] * count


def test_the_machines_own_memory_counts_as_well():
    words = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"
    batches = Batches(Cramped(2, words=words), ["projected"], 4, "cpu")
    assert batches.forward(crops(4)).views_at_once == 2


def test_a_device_without_memory_for_one_view_and_other_failures_are_no_reason_to_go_on():
    with pytest.raises(TeacherError, match="has not memory for one view of patch-means"):
        Batches(Cramped(0), ["projected"], 4, "cpu").forward(crops(4))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Batches(Cramped(0, words="shapes do not match"), ["projected"], 4, "cpu").forward(crops(4))


def test_units_computed_in_smaller_batches_say_so_wherever_the_store_goes(tmp_path):
    images, told = make_photographs(tmp_path / "images", 20), Warnings()
    # three units of 16, 16 and 8 views in batches of 4: memory is short from the second one on
    extract(images, tmp_path / "store", EXTRACT, teacher=Cramped(2, after=5), progress=told)
    assert [warning.split(":")[0] for warning in told.warnings] == ["cpu is out of memory"]
    store = Store(tmp_path / "store")
    records = [read_record(store.path, store.manifest, block) for block in range(3)]
    assert [record and record.views_at_once for record in records] == [None, 2, 2]
    assert describe_store(store)["small_batches"] == 2
    convert(store.path, tmp_path / "tars", layout="webdataset")
    assert Store(tmp_path / "tars").manifest.smaller_batches == 2
    extract(images, tmp_path / "whole", EXTRACT, teacher=PatchMeans())
    for view in range(2):
        np.testing.assert_allclose(
            store.read_rows("projected", view, range(20)),
            Store(tmp_path / "whole").read_rows("projected", view, range(20)),
            atol=2e-3,
        )
    assert "smaller_batches" not in (tmp_path / "whole" / "manifest.json").read_text()


def test_a_resumed_run_with_memory_enough_marks_only_the_units_that_were_cramped(tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    recipe = dataclasses.replace(EXTRACT, teacher_batch=4)

    class ThenFails(Cramped):
        def tokens(self, images, taps):
            if self._after < -9:
                raise ZeroDivisionError
            return super().tokens(images, taps)

    with pytest.raises(ZeroDivisionError):
        extract(images, tmp_path / "store", recipe, teacher=ThenFails(2))
    extract(images, tmp_path / "store", recipe, teacher=PatchMeans())
    assert Store(tmp_path / "store").manifest.smaller_batches == 1
