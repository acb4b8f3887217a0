"""What is timed: JPEG decoding alone, the parts of a batch, the loader, and batches late in long orders."""

import dataclasses
import io
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from caev2.pretrain.recipes import RECIPES
from caev2.pretrain.student.model import branch_rates
from caev2.pretrain.supply.batches import StepBatches
from caev2.pretrain.supply.keep import keep_bits
from caev2.pretrain.supply.loading import load_batches
from caev2.pretrain.supply.masks import draw_masks
from caev2.pretrain.supply.order import RowOrder
from caev2.store.pixels.crops import StoredCrops, decode_crop
from caev2.store.pixels.views import hash_crop
from caev2.store.reader import Store

DECODE, LOADER = "JPEG decoding alone", "loader, in process"
WORKERS = (1, 2)
FEW, MANY, LAST = 4, 68, 72
"""Batches a worker: the timing begins, ends, and the run ends."""
ROWS = (10**3, 10**5, 10**6)
EPOCHS = (0, 250)

Spent = tuple[float, float]
"""Seconds of wall time, and of all cores together."""


def open_batches(store: Path, batch: int, size: str = "tiny", rows: int | None = None) -> StepBatches:
    """The batches of a published recipe on a store; with `rows`, as if it had so many."""
    opened, recipe = Store(store), RECIPES[f"{size}-300e"]
    numbers = opened.valid_images if rows is None else np.arange(rows) % len(opened)
    return StepBatches(
        store=opened,
        crops=StoredCrops(opened),
        order=RowOrder(rows=numbers, views=opened.views, batch_size=batch, epochs=300, seed=0),
        model=recipe.model,
        mask=recipe.mask,
        target=recipe.target,
        seed=recipe.seed,
    )


def measure_parts(store: Path, batch: int, rounds: int, seed: int) -> dict[str, list[Spent]]:
    """Seconds an image of everything, in turns; what one turn read, the next one reads elsewhere.

    A process of its own. How fast libjpeg-turbo decodes depends on whether one row of pixels happens to lie at a
    multiple of 32 bytes; so small objects of random number are laid on the heap first.
    """
    torch.set_num_threads(1)
    heap = [bytearray(random.Random(seed).randrange(500, 1000)) for _ in range(random.Random(seed).randrange(100))]
    batches = open_batches(store, batch)
    for step in range(batches.order.views * batches.order.steps_per_epoch):
        batches.batch_of(step)  # every small array has been read, and every row lies in the page cache
    found: dict[str, list[Spent]] = {}
    for turn in range(rounds):
        for name, work in _works(batches, turn).items():
            found.setdefault(name, []).append(_timed(work, batch))
    del heap
    return found


def _works(batches: StepBatches, step: int) -> dict[str, Callable[[], object]]:
    order, store, model = batches.order, batches.store, batches.model
    rows, view, rates = order.rows_of(step), order.view_of(step), branch_rates(model)
    encoding, size_px = str(store.manifest.spec.crops), store.manifest.spec.views.size_px
    data = [bytes(one) for one in store.read_crops(view, rows)]
    pixels = np.stack([decode_crop(encoding, one, size_px) for one in data])

    def decode() -> None:
        for one in data:
            Image.open(io.BytesIO(one)).load()

    works: dict[str, Callable[[], object]] = {
        LOADER: lambda: batches.batch_of(2 * order.steps_per_epoch * order.views + step),
        "crops: read and crc": lambda: store.read_crops(view, rows),
        "crops: hash": lambda: [hash_crop(one) for one in pixels],
        "crops: all, into the batch": lambda: batches.crops.fill(view, rows, pixels),
        "rows and crc": lambda: store.read_stored(batches.target, view, rows),
        "masks": lambda: draw_masks(batches.mask, model.grid_size, 0, 1, rows),
        "keep bits": lambda: keep_bits(0, 1, step, rows, rates),
    }
    return {DECODE: decode, **works} if encoding == "jpeg" else works


def _timed(work: Callable[[], object], images: int) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / images, (time.process_time() - cpu) / images


def measure_workers(store: Path, batch: int, workers: int) -> Spent:
    """Seconds an image of the loader with workers; the batches arrive, and one byte of each row is looked at.

    Timed while it runs: from a batch after the start to one before the end, so that neither starting workers nor a last
    stock of batches counts.
    """
    torch.set_num_threads(1)
    batches = open_batches(store, batch)
    marks: list[Spent] = []
    for number, one in enumerate(load_batches(batches, range(LAST * workers), workers)):
        one.crops[:, 0, 0, 0].sum().item()
        if number in (FEW * workers, MANY * workers):
            marks.append((time.perf_counter(), _cpu_seconds()))
    images = (MANY - FEW) * workers * batch
    return (marks[1][0] - marks[0][0]) / images, (marks[1][1] - marks[0][1]) / images


def _cpu_seconds() -> float:
    """Of this process and its workers, in the kernel's ticks of 10 ms."""
    ticks = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_orders(store: Path, batch: int, rounds: int) -> Iterator[dict]:
    """Milliseconds of a batch by rows of the order and by epoch, and of the epoch's permutation apart."""
    torch.set_num_threads(1)
    orders = {rows: open_batches(store, batch, rows=rows) for rows in ROWS}
    for batches in orders.values():
        for view in range(batches.order.views):
            batches.store.read_stored(batches.target, view, batches.store.valid_images)
            batches.crops.fill(view, batches.store.valid_images[:batch], _room(batches, batch))
    for turn in range(rounds):
        for rows, batches in orders.items():
            for epoch in EPOCHS:
                first = (epoch + turn) * batches.order.steps_per_epoch
                begun = time.process_time()
                batches.order.rows_of(first)
                permuted = time.process_time()
                for step in range(first, first + 4):
                    batches.batch_of(step)
                took = (time.process_time() - permuted) / 4
                yield {"rows": rows, "epoch": epoch, "batch_ms": 1e3 * took, "order_ms": 1e3 * (permuted - begun)}


def _room(batches: StepBatches, batch: int) -> np.ndarray:
    size_px = batches.store.manifest.spec.views.size_px
    return np.empty((batch, size_px, size_px, 3), np.uint8)


def core_rate(spent: list[Spent]) -> dict[str, float]:
    """Images a second of one core: the least, the median, the most."""
    rates = sorted(1 / cpu for _, cpu in spent)
    return {"min": rates[0], "median": float(np.median(rates)), "max": rates[-1]}


def microseconds(spent: list[Spent]) -> dict[str, float]:
    """Of a core, an image."""
    values = sorted(1e6 * cpu for _, cpu in spent)
    return {"min": values[0], "median": float(np.median(values)), "max": values[-1]}


def settings_of(batch: int) -> dict:
    """What the student is."""
    recipe = RECIPES["tiny-300e"]
    return {"batch": batch, "mask": dataclasses.asdict(recipe.mask), "branches": len(branch_rates(recipe.model))}
