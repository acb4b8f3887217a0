"""How long a large store takes to open, and how much memory: a million images x 8 views.

    python benchmarks/store_open.py [--images 1000000] [--views 8]

The store is sparse: manifest and index are whole, of the blocks only the first and the last are there. A fresh process
opens it, asks which images are valid and which class they have, and reads 64 rows of either block. Measured: seconds
of the opening alone and with the first rows, and the largest memory of the whole process, libraries included. Writes
benchmarks/results/store-open-DATE.json.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from caev2.store.hashing import hash_file
from caev2.store.index import Listing, write_index
from caev2.store.layout import INDEX
from caev2.store.manifest import FILE_NAME, Manifest, StoreSpec, TargetSpec, sealed
from caev2.store.pixels.views import View, ViewSettings
from caev2.store.records import describe_file
from caev2.store.unit_writer import RenderedView
from caev2.store.writer import StoreWriter

RESULTS = Path(__file__).parent / "results"
TOKENS, WIDTH = 5, 8

OPEN = """
import json, pathlib, sys, time
begun = time.perf_counter()
from caev2.store.reader import Store
imported = time.perf_counter()
store = Store(sys.argv[1])
valid, labels = store.valid_images, store.labels
opened = time.perf_counter()
rows = [store.read_rows("projected", store.views - 1, some) for some in (valid[:64], valid[-64:])]
read = time.perf_counter()
assert len(valid) == len(labels) == len(store) and all(one.any() for one in rows)
status = pathlib.Path("/proc/self/status").read_text()  # getrusage would count the parent before the fork
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({
    "import_s": imported - begun, "open_s": opened - imported, "rows_s": read - opened, "peak_bytes": peak
}))
"""


def write_sparse_store(path: Path, images: int, views: int) -> None:
    target = TargetSpec(teacher={"name": "made-up"}, tap="projected", tokens=TOKENS, width=WIDTH)
    manifest = Manifest(
        spec=StoreSpec(views=ViewSettings(size_px=32), targets={"projected": target}),
        images=images,
        views=views,
        source_digest="made up",
        classes=tuple(f"class-{number}" for number in range(1000)),
        state="building",
    )
    keys = [f"class-{number % 1000:03d}/image-{number:012d}.jpg" for number in range(images)]
    writer = StoreWriter(path, manifest, Listing(keys=keys, paths=keys, labels=[-1] * images))
    view = View(box=(0, 0, 32, 32), flip=False, order=(0, 1, 2), factors=(1.0, 1.0, 1.0), grey_mean=0)
    rendered = [RenderedView(view, np.zeros((32, 32, 3), np.uint8))] * views
    rows = np.random.default_rng(0).standard_normal((views, TOKENS, WIDTH)).astype(np.float16)
    for block in (0, manifest.blocks - 1):
        with writer.unit(block) as unit:
            for _ in manifest.images_of_block(block):
                unit.add_image(describe_file(b"", height=32, width=32), rendered, {"projected": rows})
            unit.finish()
    columns = {
        "key": keys,
        "label": [number % 1000 for number in range(images)],
        "container": keys,
        "offset": [0] * images,
        "height": [375] * images,
        "width": [500] * images,
        "bytes": [110_000] * images,
        "xxh3_128": np.random.default_rng(1).bytes(16 * images).hex(" ", 16).split(),
        "valid": [True] * images,
        "reason": [None] * images,
    }
    write_index(path, columns, writer.scratch)
    writer.close()
    done = sealed(manifest, "made up", hash_file(path / INDEX), ())
    (path / FILE_NAME).write_bytes(done.to_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory to open a large store.")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        write_sparse_store(path, chosen.images, chosen.views)
        command = [sys.executable, "-c", OPEN, str(path)]
        found = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(chosen.rounds)
        ]
        index_bytes = (path / INDEX).stat().st_size
    for one in found:
        print(", ".join(f"{name} {value:,.3f}" for name, value in one.items()))
    date = str(datetime.datetime.now(datetime.UTC).date())
    content = {"date": date, **vars(chosen), "index_bytes": index_bytes, "found": found}
    result = RESULTS / f"store-open-{date}.json"
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {result.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
