"""A killed extraction costs at most the unit it was in: SIGKILL anywhere, and the same command ends in the same bytes."""

import dataclasses
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from caev2.extract.run import extract
from caev2.store import disk
from tests.made_up import EXTRACT, PatchMeans, make_photographs

RECIPE = dataclasses.replace(EXTRACT, block_images=32)
IMAGES, VIEWS = 1300, 2
UNITS = 41  # the last one is short
KILLS_IN_UNITS = 21
FILES_OF_A_UNIT = 2 * (1 + 9)  # for each view: a shard, eight view fields, the checksums

# where a process kills itself: (what it counts, how many it lets pass)
SEAL = [("index", 0), ("index", 1), ("manifest", 0), ("manifest", 1)]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(PatchMeans):
    """A teacher whose process is killed in its batch number `batches`, once `units` of the store are done.

    Units are written while the next ones are computed; the wait makes sure that every kill is one of a later unit.
    """

    def __init__(self, calls: Path, batches: int, store: Path, units: int):
        super().__init__(calls)
        self._left, self._store, self._units = batches, store, units

    def tokens(self, images, taps):
        self._left -= 1
        if self._left < 0:
            deadline = time.monotonic() + 60
            while units_done(self._store) < self._units and time.monotonic() < deadline:
                time.sleep(0.001)
            die()
        return super().tokens(images, taps)


class DeadlyMoves:
    """The module `os`, whose process is killed before move number `count` of a kind.

    Of index and manifest, it is killed right after the move before that one as well.
    """

    def __init__(self, kind: str, count: int):
        self._kind, self._left = kind, count

    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, temporary, final):
        self._move(os.replace, temporary, final)

    def link(self, temporary, final):
        if Path(final).exists():
            raise FileExistsError(final)
        self._move(os.link, temporary, final)

    def _move(self, move, temporary, final):
        name = Path(final).name
        named = {"index": name == "index.parquet", "manifest": name == "manifest.json"}
        matches = named.get(self._kind, self._kind == "move")
        self._left -= matches
        if self._left < 0:
            die()
        move(temporary, final)
        if self._kind in named and matches and self._left == 0:
            die()


def run_until_killed(images: Path, store: Path, calls: Path, kind: str, count: int, finished: int = 0) -> None:
    """The body of a process that will not return, unless its work ends before; it finishes so many units first."""
    teacher = PatchMeans(calls)
    if kind == "batch":
        teacher = Deadly(calls, count, store, units_done(store) + finished)
    else:
        disk.os = DeadlyMoves(kind, count)
    extract(images, store, RECIPE, teacher=teacher)


def kill_once(*arguments) -> bool:
    """Whether the process was killed, rather than ending."""
    process = multiprocessing.get_context("fork").Process(target=run_until_killed, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode == -signal.SIGKILL


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def rows_computed(calls: Path) -> int:
    return sum(map(int, calls.read_text().split()))


def units_done(store: Path) -> int:
    return len(list((store / "units").glob("*.json"))) if (store / "units").is_dir() else 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_store_that_was_killed_again_and_again_has_the_bytes_of_an_undisturbed_one(tmp_path):
    images = make_photographs(tmp_path / "images", IMAGES)
    whole_calls, calls, store = tmp_path / "whole-calls", tmp_path / "calls", tmp_path / "store"
    extract(images, tmp_path / "whole", RECIPE, teacher=PatchMeans(whole_calls))
    assert units_done(tmp_path / "whole") == UNITS
    assert rows_computed(whole_calls) == IMAGES * VIEWS

    kills = 0
    # while the store is begun: before and after its manifest, then among the fourteen files that describe its arrays
    for kind, count in (("manifest", 0), ("manifest", 1), ("move", 0), ("move", 5), ("move", 5)):
        assert kill_once(images, store, calls, kind, count), (kind, count)
        assert units_done(store) == 0
        kills += 1

    chance, killed_in, in_moves = random.Random(0), set(), 0
    for number in range(KILLS_IN_UNITS):
        finished = 0 if number == 0 else 1  # redo the unit of the last kill, then die in the next
        if number % 3 == 1:
            kind, per_unit = "move", FILES_OF_A_UNIT + 1  # and the record of the unit
            in_moves += 1
        else:
            kind, per_unit = "batch", RECIPE.block_images * VIEWS // RECIPE.teacher_batch
        count = finished * per_unit + chance.randrange(per_unit)
        assert kill_once(images, store, calls, kind, count, finished)
        kills += 1
        killed_in.add(units_done(store))
    assert len(killed_in) == KILLS_IN_UNITS
    assert in_moves >= 5

    for kind, count in SEAL:
        assert kill_once(images, store, calls, kind, count), (kind, count)
        kills += 1

    sealed_by_a_killed_process = rows_computed(calls)
    result = extract(images, store, RECIPE, teacher=PatchMeans(calls))
    assert result.rows_computed == 0  # a resume after the seal computes none
    assert rows_computed(calls) == sealed_by_a_killed_process
    assert rows_computed(calls) <= IMAGES * VIEWS + kills * RECIPE.block_images * VIEWS
    there, wanted = files_of(store), files_of(tmp_path / "whole")
    assert there == wanted
    assert not (store / ".tmp").exists()


def test_two_writers_of_one_store_leave_the_bytes_of_one(tmp_path):
    images, store = make_photographs(tmp_path / "images", 100), tmp_path / "store"
    extract(images, tmp_path / "whole", RECIPE, teacher=PatchMeans())
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=extract, args=(images, store, RECIPE), kwargs={"teacher": PatchMeans()})
        for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert files_of(store) == files_of(tmp_path / "whole")
    assert not (store / ".tmp").exists()
