"""How fast rows of every codec are read, beside a flat file of the same bytes and other zarr readers.

    python benchmarks/store_read.py [--images 1024] [--rounds 9] [--folder DIR]

Stores of made-up latents of CLIP ViT-B/16's size (197 tokens of 512), two views, one store for each codec; then what
`caev2 store bench` measures: random batches of 64 rows of one view, everything in the page cache, readers in turns.
Writes benchmarks/results/store-read-DATE.json.
"""

import argparse
import dataclasses
import datetime
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caev2.store.bench import FLAT, BenchReport, bench_store
from caev2.store.codecs.calibration import fit_codec
from caev2.store.codecs.catalog import codec_named
from caev2.store.index import Listing
from caev2.store.manifest import Manifest, StoreSpec, TargetSpec
from caev2.store.pixels.views import View, ViewSettings
from caev2.store.reader import Store
from caev2.store.records import describe_file
from caev2.store.unit_writer import RenderedView
from caev2.store.writer import StoreWriter
from caev2.terminal import Bars, print_table

RESULTS = Path(__file__).parent / "results"
TOKENS, WIDTH, VIEWS = 197, 512, 2
CODECS = ("float16", "int8", "lloyd4")
TEACHER = {"name": "made-up", "sha256": "0" * 64, "precision": "fp32"}


def made_up_rows(count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.standard_normal((VIEWS, TOKENS, WIDTH), dtype=np.float32).astype(np.float16)


def write_store(path: Path, codec: str, images: int) -> None:
    target = TargetSpec(teacher=TEACHER, tap="projected", tokens=TOKENS, width=WIDTH, codec=codec)
    manifest = Manifest(
        spec=StoreSpec(views=ViewSettings(size_px=32), targets={"projected": target}),
        images=images,
        views=VIEWS,
        source_digest="made up",
        classes=(),
        state="building",
    )
    keys = [f"{number:06d}" for number in range(images)]
    writer = StoreWriter(path, manifest, Listing(keys=keys, paths=keys, labels=[-1] * images))
    for name in writer.uncalibrated():
        calibration = np.concatenate(list(made_up_rows(16)))
        writer.calibrate(name, *fit_codec(codec_named(codec), calibration, calibration[:0]))
    view = View(box=(0, 0, 32, 32), flip=False, order=(0, 1, 2), factors=(1.0, 1.0, 1.0), grey_mean=0)
    rendered = [RenderedView(view, np.zeros((32, 32, 3), np.uint8))] * VIEWS
    rows = made_up_rows(images)
    for block in range(manifest.blocks):
        with writer.unit(block) as unit:
            for _ in manifest.images_of_block(block):
                unit.add_image(describe_file(b"", height=32, width=32), rendered, {"projected": next(rows)})
            unit.finish()
    writer.seal()


def print_report(codec: str, report: BenchReport) -> None:
    flat, zarr = report.speed[FLAT].median, report.speed["zarr-python"].median
    lines = [
        (
            name,
            f"{speed.median:,.0f}",
            f"{speed.least:,.0f} - {speed.most:,.0f}",
            f"{speed.median * report.row_bytes / 1e6:,.0f}",
            f"{speed.median / flat:.3f}",
            f"{speed.median / zarr:.1f}",
        )
        for name, speed in report.speed.items()
    ]
    title = f"{codec}: rows of {report.row_bytes:,} bytes"
    print_table(title, ("reader", "rows/s", "least - most", "MB/s", "of flat", "of zarr"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows a second of every codec, beside other readers.")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None, help="Where stores are made, and kept.")
    chosen = parser.parse_args()
    found, bars = {}, Bars(quiet=False)
    with tempfile.TemporaryDirectory() as temporary:
        for codec in CODECS:
            path = (chosen.folder or Path(temporary)) / codec
            write_store(path, codec, chosen.images)
            found[codec] = bench_store(Store(path), "projected", rounds=chosen.rounds, progress=bars)
    for codec, report in found.items():
        print_report(codec, report)
    date = str(datetime.datetime.now(datetime.UTC).date())
    content = {
        "date": date,
        "machine": f"{os.cpu_count()} CPU cores",
        "images": chosen.images,
        "views": VIEWS,
        "codecs": {codec: dataclasses.asdict(report) for codec, report in found.items()},
    }
    path = RESULTS / f"store-read-{date}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {path.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
