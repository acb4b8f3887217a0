"""How fast pre-training is from files on: this engine on a store, with a live teacher, and a plain eager loop.

    python benchmarks/pretrain_end_to_end.py [--sizes tiny,base] [--device cuda] [--workers 15] [--quick]

In turns, every round beginning with another one, each in a process of its own, at equal batch:

* a: this engine on a store of 4-bit codes and JPEG crops of 224 pixels, through the library's own loader;
* b: the same engine with CLIP ViT-B/16 in the loop (fp32 on a CPU, fp16 on a GPU; also in bf16 where the student is on
  a CPU): JPEGs of 500x375 pixels are decoded, jittered and cropped for each step, as by `--online fresh`;
* c: a plain eager loop with the same teacher in it (`pretraining/plain_loop.py`): torch's loader over the same JPEGs,
  the whole image jittered, two crops of one box, two normalisations, masks by boolean indexing, unfused attention.

Beside a GPU all loaders have as many worker processes as there are cores but one: a turn is too short for the store's
to find its own number. On a CPU that has none, as the library chooses, and those that decode have one; `--workers` sets
all. A turn starts its loader anew and is timed once that is at work, and one round before them all does not count;
files lie in the page cache. Data wait is the share of time that the host waits for its loader, while the device may
have two steps left to do. MFU as in `pretrain_step.py`, where peak memory is measured too: here loaders' processes
would count or not as the system shares pages. Writes benchmarks/results/pretrain-end-to-end[-gpu]-DATE.json.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import click
from extract_throughput import write_images
from pretraining.contenders import Bench, chosen
from pretraining.loaders import loop_of
from pretraining.material import make_material
from pretraining.options import kept_or_not, settings, shared
from pretraining.report import Report, summarise
from pretraining.setting import Material, Setting
from pretraining.timing import Turn, interleave, time_loop

CPU_STEPS = {"tiny": 10, "small": 6, "base": 3, "large": 2}
"""Of a turn, some seconds at least: the first step after somebody else's turn is slower."""


def measure(
    setting: Setting, material: Material, workers: int | None, *, rounds: int, warmup: int, steps: int
) -> dict[str, list[Turn]]:
    """Everybody's turns at one size."""
    ready = {
        name: partial(_ready, setting, material, name, workers, warmup, steps)
        for name in chosen(setting, end_to_end=True)
    }
    return interleave(ready, rounds, setting.device)


def _ready(
    setting: Setting, material: Material, name: str, workers: int | None, warmup: int, steps: int
) -> Callable[[], Turn]:
    loop = loop_of(name, Bench(setting, material), workers)
    return partial(time_loop, loop, setting.device, warmup=warmup, steps=steps)


@click.command(help=__doc__)
@shared
@click.option("--workers", type=int, help="Of each loader.")
@click.option("--images", type=int, help="Source images, and images of the store.")
def main(
    sizes: str,
    device: str,
    batches: tuple[str, ...],
    rounds: int | None,
    steps: int | None,
    precision: Literal["fp32", "bf16"] | None,
    compiled: bool | None,
    folder: Path | None,
    quick: bool,
    workers: int | None,
    images: int | None,
) -> None:
    on_cpu = device == "cpu"
    cores = len(os.sched_getaffinity(0))
    rounds = rounds or (1 if quick else 5 if on_cpu else 3)
    asked = settings(sizes, device, batches, precision, compiled)
    images = images or max(64 if on_cpu else 2048, *(setting.batch for setting in asked))
    held = {"rounds": rounds, "steps": steps or (CPU_STEPS if on_cpu else 4 * cores)}
    held |= {"warmup_steps": 2 if on_cpu else cores, "workers": workers, "images": images}
    held |= {"source": "500x375 JPEG, quality 90", "store": "lloyd4, JPEG crops of 224 pixels, two views"}
    report = Report("pretrain-end-to-end", device, held, written=not quick)
    with kept_or_not(folder) as place:
        photographs = place / f"photographs-{images}"
        if not photographs.exists():
            write_images(photographs, images)
        material = make_material(place, photographs, device)
        for setting in asked:
            # beside a GPU, workers bring whole batches each: a turn is a fair average only over several of everybody's
            timed = steps or (2 if quick else CPU_STEPS[setting.size] if on_cpu else 4 * cores)
            warmup = 2 if on_cpu else cores
            turns = measure(setting, material, workers, rounds=rounds, warmup=warmup, steps=timed)
            report.add(setting.size, summarise(setting, turns, {}))


if __name__ == "__main__":
    main()
