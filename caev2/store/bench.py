"""How fast rows are read: this store's reader beside others that people would use, in one run.

Every reader gets the same random batches, one view a batch as in training. They take turns, round after round, so that
whatever else the machine does falls on all of them. The first round warms the page cache and is not counted.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caev2.errors import StoreCorrupt, StoreMismatch
from caev2.progress import Progress, Silent
from caev2.store.layout import codes_path
from caev2.store.reader import Store
from caev2.store.remote.paths import RemotePath

Read = Callable[[int, np.ndarray], np.ndarray]
"""From a view and numbers of images to rows."""

FLAT = "flat file"
FLAT_BYTES = 1 << 29
"""About this much of the store is copied to the flat file, and read by everyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rows per second of one reader over the rounds."""

    least: float
    median: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What every reader reached."""

    rows: int
    """Rows that were drawn from."""
    row_bytes: int
    batch: int
    rounds: int
    speed: dict[str, Speed]
    """By reader; `FLAT` is the measure of the others."""
    missing: tuple[str, ...]
    """Readers that are not installed."""


def bench_store(
    store: Store,
    target: str,
    *,
    batch: int = 64,
    rounds: int = 5,
    seconds: float = 0.5,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Read random batches of a store with every reader that is installed.

    Args:
        store: A sealed store on a local disk.
        target: Which target's stored rows.
        batch: Rows at a time.
        rounds: Turns of each reader; one more warms up.
        seconds: At least so long is a turn.
        seed: Of the batches.
        progress: Who is told.

    Raises:
        StoreMismatch: The store lies at a URL.
        StoreCorrupt: A row is damaged, or a reader gives other numbers than the others.
    """
    if isinstance(store.path, RemotePath):
        raise StoreMismatch(
            f"{store.path} lies at a URL. Copy it to a local disk, whose speed is what is measured here."
        )
    progress = progress or Silent()
    random = np.random.default_rng(seed)
    rows = _choose_rows(store, target)
    missing = tuple(name for name in ("zarrs", "tensorstore") if importlib.util.find_spec(name) is None)
    with tempfile.TemporaryDirectory() as folder, _readers(store, target, rows, Path(folder)) as readers:
        _refuse_other_numbers(readers, rows[:batch])
        progress.start("bench", (rounds + 1) * len(readers))
        found: dict[str, list[float]] = {name: [] for name in readers}
        for turn in range(rounds + 1):
            for name, read in readers.items():
                speed = _measure(read, store.views, rows, batch, seconds, random)
                if turn:
                    found[name].append(speed)
                progress.advance(1)
        progress.finish()
    return BenchReport(
        rows=store.views * len(rows),
        row_bytes=_row_bytes(store, target),
        batch=batch,
        rounds=rounds,
        speed={
            name: Speed(least=min(values), median=statistics.median(values), most=max(values))
            for name, values in found.items()
        },
        missing=missing,
    )


def _refuse_other_numbers(readers: Mapping[str, Read], images: np.ndarray) -> None:
    """A fast reader of other numbers would win."""
    wanted = readers[FLAT](0, images).tobytes()
    for name, read in readers.items():
        if read(0, images).tobytes() != wanted:
            raise StoreCorrupt(f"{name} reads other numbers than were stored. Run `caev2 store verify`.")


def _row_bytes(store: Store, target: str) -> int:
    return store.manifest.spec.targets[target].row_bytes


def _choose_rows(store: Store, target: str) -> np.ndarray:
    """The first valid images, as many as the flat file has room for."""
    room = FLAT_BYTES // (_row_bytes(store, target) * store.views)
    return store.valid_images[: max(1, room)]


def _measure(
    read: Read, views: int, rows: np.ndarray, batch: int, seconds: float, random: np.random.Generator
) -> float:
    """Rows per second of random batches; drawing the batches is not timed."""
    spent, count = 0.0, 0
    while spent < seconds:
        view, images = int(random.integers(views)), random.choice(rows, batch)
        begun = time.perf_counter()
        read(view, images)
        spent += time.perf_counter() - begun
        count += batch
    return count / spent


@contextmanager
def _readers(store: Store, target: str, rows: np.ndarray, folder: Path) -> Iterator[dict[str, Read]]:
    """Every reader by name, the flat file first."""
    flat = _flat_file(store, target, rows, folder / "flat")
    place = np.full(len(store), -1)
    place[rows] = np.arange(len(rows))
    readers: dict[str, Read] = {
        FLAT: lambda view, images: flat[view, place[images]],
        "caev2": lambda view, images: store.read_stored(target, view, images),
        "unchecked": lambda view, images: store.read_stored(target, view, images, check=False),
    }
    array = Path(store.path) / codes_path(target)
    readers["zarr-python"] = _zarr_reader(array)
    if importlib.util.find_spec("zarrs") is not None:
        readers["zarr + zarrs"] = _zarrs_reader(array)
    if importlib.util.find_spec("tensorstore") is not None:
        readers["tensorstore"] = _tensorstore_reader(array)
    yield readers


def _flat_file(store: Store, target: str, rows: np.ndarray, path: Path) -> np.ndarray:
    """The same rows one after the other, [view, row, ...], as a read-only memory map."""
    first = store.read_stored(target, 0, rows[:1])
    flat = np.memmap(path, dtype=first.dtype, mode="w+", shape=(store.views, len(rows), *first.shape[1:]))
    for view in range(store.views):
        for begin in range(0, len(rows), 256):
            flat[view, begin : begin + 256] = store.read_stored(target, view, rows[begin : begin + 256])
    flat.flush()
    return np.memmap(path, dtype=first.dtype, mode="r", shape=flat.shape)


def _zarr_reader(path: Path) -> Read:
    import zarr

    array = zarr.open_array(str(path), mode="r")
    return lambda view, images: np.asarray(array.oindex[view, images])


def _zarrs_reader(path: Path) -> Read:
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(str(path), mode="r")
    return lambda view, images: np.asarray(array.oindex[view, images])


def _tensorstore_reader(path: Path) -> Read:
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    array = tensorstore.open(spec, read=True, open=True).result()
    return lambda view, images: np.asarray(array[view, images].read().result())
