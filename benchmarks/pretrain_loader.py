"""How fast batches are made of a store, beside JPEG decoding alone of the very same crops.

    python benchmarks/pretrain_loader.py [--images 1024] [--batch 64] [--processes 6] [--turns 8] [--folder DIR]

Stores of made-up latents of CLIP ViT-B/16's size and of views of real photographs at 224 pixels, two views; float16 and
lloyd4, crops as JPEG and raw. One thread, everything in the page cache, times of a core (user and system), so that what
else the machine does counts less. Three things:

* parts and whole: JPEG decoding alone (`Image.open(...).load()` on bytes in memory), every part of a batch alone, and
  `batch_of`, which does them all: rows with their checksums, crops with checksum, decoding and hash, masks, drop-path
  bits. In turns, in several processes: how fast libjpeg-turbo is depends on where in memory a row of pixels lies, which
  each process has its own luck with;
* the loader with 1 and 2 workers, until the batch is where the step would use it. Time of all processes together;
* one batch by the number of rows of the order (10^3, 10^5, 10^6, over the same store) and by epoch, and apart from it
  what the permutation of an epoch takes.

Writes benchmarks/results/pretrain-loader-DATE.json.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import TypeVar

from loading.material import VIEWS, write_store
from loading.parts import (
    DECODE,
    LOADER,
    WORKERS,
    core_rate,
    measure_orders,
    measure_parts,
    measure_workers,
    microseconds,
    settings_of,
)
from pretraining.setting import describe_machine

from caev2.store.pixels.crops import CropEncoding
from caev2.terminal import print_table

RESULTS = Path(__file__).parent / "results"
CODECS = ("lloyd4", "float16")
CROPS: tuple[CropEncoding, ...] = ("jpeg", "raw")
SHARE = 0.8
"""Of decoding alone: what is aimed at with lloyd4 and JPEG."""

Made = TypeVar("Made")


def apart(work: Callable[..., Made], *arguments: object) -> Made:
    """Do something in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        return alone.submit(work, *arguments).result()


def orders(store: Path, batch: int, rounds: int) -> list[dict]:
    """All that `measure_orders` yields."""
    return list(measure_orders(store, batch, rounds))


def measure_store(store: Path, batch: int, processes: int, turns: int) -> dict:
    """Parts, whole and workers of one store, and the share of decoding in every process."""
    together, shares = {}, []
    for seed in range(processes):
        found = apart(measure_parts, store, batch, turns, seed)
        for name, spent in found.items():
            together.setdefault(name, []).extend(spent)
        if DECODE in found:
            shares.append(_median_cpu(found[DECODE]) / _median_cpu(found[LOADER]))
        for count in WORKERS:
            spent = apart(measure_workers, store, batch, count)
            together.setdefault(f"loader, {count} workers", []).append(spent)
    result = {
        "core_us_an_image": {name: microseconds(spent) for name, spent in together.items()},
        "images_per_s_of_a_core": {name: core_rate(spent) for name, spent in together.items()},
        "images_per_s": {name: statistics.median(1 / wall for wall, _ in spent) for name, spent in together.items()},
    }
    if shares:
        medians = {name: _median_cpu(spent) for name, spent in together.items()}
        result["share_of_decoding"] = {
            "by_process": shares,
            "median": statistics.median(shares),
            "of_medians": {
                name: medians[DECODE] / cpu for name, cpu in medians.items() if name.startswith("loader")
            },
        }  # fmt: skip
    return result


def _median_cpu(spent: list[tuple[float, float]]) -> float:
    return statistics.median(cpu for _, cpu in spent)


def summarise_orders(found: list[dict]) -> list[dict]:
    """Medians by rows and epoch."""
    cells = dict.fromkeys((one["rows"], one["epoch"]) for one in found)
    return [
        {
            "rows": rows,
            "epoch": epoch,
            **{
                name: statistics.median(one[name] for one in found if (one["rows"], one["epoch"]) == (rows, epoch))
                for name in ("batch_ms", "order_ms")
            },
        }
        for rows, epoch in cells
    ]


def print_store(name: str, found: dict) -> None:
    """For people."""
    rates, wall = found["images_per_s_of_a_core"], found["images_per_s"]
    lines = [
        [
            part,
            f"{one['median']:.1f}",
            f"{one['min']:.1f} - {one['max']:.1f}",
            f"{rates[part]['median']:,.0f}",
            f"{wall[part]:,.0f}",
        ]
        for part, one in found["core_us_an_image"].items()
    ]
    print_table(name, ("", "core us", "least - most", "images/s a core", "images/s"), lines)
    if "share_of_decoding" in found:
        share = found["share_of_decoding"]
        by_process = ", ".join(f"{one:.2f}" for one in share["by_process"])
        print(f"Share of decoding alone, per core (aim: {SHARE} in process): {share['median']:.2f} ({by_process}).")


def main() -> None:
    parser = argparse.ArgumentParser(description="Batches a second, beside JPEG decoding alone.")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--processes", type=int, default=6, help="In which everything is measured anew.")
    parser.add_argument("--turns", type=int, default=8, help="Of every part in each process.")
    parser.add_argument("--folder", type=Path, default=None, help="Where stores are made, kept and found again.")
    parser.add_argument("--quick", action="store_true", help="One short round, to see that it works; no results.")
    chosen = parser.parse_args()
    images, processes, turns = (192, 1, 1) if chosen.quick else (chosen.images, chosen.processes, chosen.turns)
    content = {
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        **describe_machine(),
        "torch_threads": 1,
        "load_average": {"before": os.getloadavg()},
        "held_fixed": {"images": images, "views": VIEWS, **settings_of(chosen.batch)},
        "stores": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.folder or Path(temporary)).absolute()
        for codec, crops in product(CODECS, CROPS):
            store = write_store(folder / f"{codec}-{crops}", images, codec, crops)
            content["stores"][f"{codec}, {crops}"] = measure_store(store, chosen.batch, processes, turns)
            print_store(f"{codec}, {crops}", content["stores"][f"{codec}, {crops}"])
        content["orders"] = summarise_orders(apart(orders, folder / "lloyd4-jpeg", chosen.batch, turns))
    content["load_average"]["after"] = os.getloadavg()
    lines = [
        [f"{one['rows']:,}", str(one["epoch"]), f"{one['batch_ms']:.1f}", f"{one['order_ms']:.1f}"]
        for one in content["orders"]
    ]
    print_table("A batch, by rows of the order", ("rows", "epoch", "ms a batch", "ms an epoch, once"), lines)
    if not chosen.quick:
        path = RESULTS / f"pretrain-loader-{content['date']}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"Written: {path.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
