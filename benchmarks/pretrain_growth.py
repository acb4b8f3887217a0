"""Whether a training step knows how large the store is, and how far the run: it should not.

    python benchmarks/pretrain_growth.py [--images 1000 10000 100000 1000000] [--steps 400]

A store of small views (16 pixels, crops kept, float16 latents of 5 tokens) for each number of images. A student of the
size of a toy trains on it through `caev2.pretrain.run.pretrain`, batch 64, without workers: from step 0, and from a
checkpoint at the start of epoch 200 as a killed run would leave it. Told of each: milliseconds of a step (the time
between two steps, everything included; medians over the first and the second half of the steps: a run opens and checks
each file when it first needs it, which the first steps on a large store do for nearly every image), and seconds from
the call until the first step is done. A new process for each run, sizes in turn within a round. Writes
benchmarks/results/pretrain-growth-DATE.json.
"""

import argparse
import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from caev2.pretrain.identity import claim_run, identify
from caev2.pretrain.plan import fit_recipe, row_order
from caev2.pretrain.recipes import OptimizerSettings, PretrainRecipe
from caev2.pretrain.student.model import build
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.supply.masks import MaskSettings
from caev2.pretrain.weights.checkpoint import save_checkpoint
from caev2.store.hashing import hash_file
from caev2.store.index import Listing, write_index
from caev2.store.layout import INDEX
from caev2.store.manifest import FILE_NAME, Manifest, StoreSpec, TargetSpec, sealed
from caev2.store.pixels.views import View, ViewSettings
from caev2.store.reader import Store
from caev2.store.records import describe_file
from caev2.store.unit_writer import RenderedView
from caev2.store.writer import StoreWriter
from caev2.terminal import print_table

RESULTS = Path(__file__).parent / "results"
SIZE_PX, TOKENS, WIDTH = 16, 5, 8
EPOCH = 200
RECIPE = PretrainRecipe(
    model=ModelSettings(
        image_px=SIZE_PX, patch_px=8, width=24, depth=2, heads=2, regressor_width=24, regressor_depth=1,
        regressor_heads=2, target_width=WIDTH,
    ),
    mask=MaskSettings(count=1, min_block_patches=1),
    optimizer=OptimizerSettings(warmup_epochs=0),
    epochs=300, batch_size=64, workers=0, checkpoint_epochs=300,
)  # fmt: skip

RUN = """
import json, sys, time
from caev2.pretrain.run import pretrain
from caev2.progress import Silent
from benchmarks.pretrain_growth import RECIPE
class Clock(Silent):
    moments = []
    def advance(self, items, **figures):
        self.moments.extend([time.perf_counter()] * items)
begun = time.perf_counter()
pretrain(sys.argv[1], sys.argv[2], RECIPE, progress=Clock(), stop_after=int(sys.argv[3]))
moments = Clock.moments
steps = [1000 * (b - a) for a, b in zip(moments, moments[1:])]
half = len(steps) // 2
middle = [sorted(part)[len(part) // 2] for part in (steps[:half], steps[half:])]
print(json.dumps({"start_s": moments[0] - begun, "early_ms": middle[0], "step_ms": middle[1], "steps": len(moments)}))
"""


def write_store(path: Path, images: int) -> None:
    """Random views and latents; whole, and sealed."""
    target = TargetSpec(teacher={"name": "made-up"}, tap="projected", tokens=TOKENS, width=WIDTH)
    manifest = Manifest(
        spec=StoreSpec(views=ViewSettings(size_px=SIZE_PX), targets={"projected": target}, crops="raw"),
        images=images,
        views=1,
        source_digest="made up",
        classes=(),
        state="building",
    )
    keys = [f"image-{number:09d}.jpg" for number in range(images)]
    writer = StoreWriter(path, manifest, Listing(keys=keys, paths=keys, labels=[-1] * images))
    view = View(box=(0, 0, SIZE_PX, SIZE_PX), flip=False, order=(0, 1, 2), factors=(1.0, 1.0, 1.0), grey_mean=0)
    random, facts = np.random.default_rng(0), describe_file(b"", height=SIZE_PX, width=SIZE_PX)
    for block in range(manifest.blocks):
        members = manifest.images_of_block(block)
        crops = random.integers(0, 256, (len(members), SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        rows = random.standard_normal((len(members), 1, TOKENS, WIDTH)).astype(np.float16)
        with writer.unit(block) as unit:
            for crop, row in zip(crops, rows, strict=True):
                unit.add_image(facts, [RenderedView(view, crop, crop.tobytes())], {"projected": row})
            unit.finish()
    columns = {
        "key": keys, "label": [-1] * images, "container": keys, "offset": [0] * images, "height": [SIZE_PX] * images,
        "width": [SIZE_PX] * images, "bytes": [1] * images, "xxh3_128": ["0" * 32] * images, "valid": [True] * images,
        "reason": [None] * images,
    }  # fmt: skip
    write_index(path, columns, writer.scratch)
    writer.close()
    (path / FILE_NAME).write_bytes(sealed(manifest, "made up", hash_file(path / INDEX), ()).to_bytes())


def begin_at(store: Path, run: Path, epoch: int) -> int:
    """A run that was left at the start of an epoch; the number of steps that it has done."""
    opened = Store(store)
    recipe = fit_recipe(RECIPE, opened)
    done = epoch * row_order(recipe, opened).steps_per_epoch
    identity = identify(recipe, opened, "fp32")
    run.mkdir()
    claim_run(run, identity)
    if done:
        model = build(recipe.model, recipe.seed)
        optimizer = adamw(model)
        save_checkpoint(
            run / "checkpoints", model, optimizer, step=done, fingerprint=identity.fingerprint(), keep_last=1
        )
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for images in chosen.images:
            write_store(Path(scratch) / str(images), images)
        for number in range(chosen.rounds):
            for images in chosen.images:
                for epoch in (0, EPOCH):
                    store, run = Path(scratch) / str(images), Path(scratch) / f"run-{number}-{images}-{epoch}"
                    stop = begin_at(store, run, epoch) + chosen.steps
                    done = subprocess.run(
                        [sys.executable, "-c", RUN, store, run, str(stop)],
                        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1],
                    )  # fmt: skip
                    found.setdefault((images, epoch), []).append(json.loads(done.stdout))
    rows = [
        {
            "images": images,
            "epoch": epoch,
            **{name: statistics.median(one[name] for one in several) for name in ("early_ms", "step_ms", "start_s")},
            "rounds": several,
        }
        for (images, epoch), several in found.items()
    ]
    print_table(
        "Steps of a small student",
        ("images", "from epoch", "ms a step", "later", "s until the first"),
        [
            (f"{r['images']:,}", str(r["epoch"]), *(f"{r[name]:.2f}" for name in ("early_ms", "step_ms", "start_s")))
            for r in rows
        ],
    )
    date = str(datetime.datetime.now(datetime.UTC).date())
    content = {"date": date, **vars(chosen), "recipe": dataclasses.asdict(RECIPE.model), "found": rows}
    result = RESULTS / f"pretrain-growth-{date}.json"
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {result.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
