"""How fast a step is on data that is there: this engine on a store, with a live teacher, and a plain eager loop.

    python benchmarks/pretrain_step.py [--sizes tiny,base] [--device cuda] [--batch base=128] [--quick]

In turns, every round beginning with another one after one that does not count, each in a process of its own, at equal
batch and on the same crops, masks and latents:

* a: this engine on 4-bit codes of a store, which are decoded in the step;
* b: the same engine with CLIP ViT-B/16 in the loop, as `--online fresh` has it (fp32 on a CPU, fp16 on a GPU); where
  the student computes in bf16 on a CPU, also with a teacher in bf16;
* c: a plain eager loop with the same teacher in it (`pretraining/plain_loop.py`, which has the same loss and gradients
  as this package: `tests/test_reference_loop.py`);
* c's student alone, on latents that are there, without a teacher;
* a bare timm ViT of the same token counts, forward and backward and no more, with fused attention and without: c's
  student, which also has an optimiser and clips, should not be much slower than the latter. It multiplies a little
  more, too (4 % at base): its regressor has keys and values of all patches; so that ratio is told per multiply-add too;
* the teacher's forward pass alone.

Images are crops of real photographs, latents those of a CLIP with random weights. MFU is six times the student's
forward multiply-adds over step time and the card's dense bf16 peak, whoever is timed, without the teacher's arithmetic.
Peak memory is that of a process of its own for each: allocated on the GPU, or resident on a CPU, weights' loading
included. Writes benchmarks/results/pretrain-step[-gpu]-DATE.json.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import click
from extract_throughput import write_images
from pretraining.contenders import CONTENDERS, Bench, chosen
from pretraining.material import make_material
from pretraining.options import kept_or_not, settings, shared
from pretraining.report import Report, summarise
from pretraining.setting import Material, Setting
from pretraining.timing import Turn, interleave, peak_memory_mb, time_steps

CPU_STEPS = {"tiny": 8, "small": 4, "base": 2, "large": 1}
"""Of a turn, some seconds at least."""


def measure(
    setting: Setting, material: Material, *, rounds: int, warmup: int, steps: int, one_at_a_time: bool
) -> dict[str, list[Turn]]:
    """Everybody's turns at one size; all students are in memory together, unless each comes one at a time."""
    ready = {name: partial(_ready, setting, material, name, warmup, steps) for name in chosen(setting)}
    return interleave(ready, rounds, setting.device, one_at_a_time=one_at_a_time)


def _ready(setting: Setting, material: Material, name: str, warmup: int, steps: int) -> Callable[[], Turn]:
    step = CONTENDERS[name](Bench(setting, material))
    return partial(time_steps, step, setting.device, warmup=warmup, steps=steps)


@click.command(help=__doc__)
@shared
@click.option("--memory/--no-memory", default=True, help="Measure peak memory, in processes of their own.")
@click.option(
    "--one-at-a-time",
    is_flag=True,
    help="New processes for every turn: base and large together take more memory than most machines have.",
)
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
    memory: bool,
    one_at_a_time: bool,
) -> None:
    on_cpu = device == "cpu"
    rounds = rounds or (1 if quick else 5)
    # the first step after somebody else's turn is slower: memory comes anew from the system
    warmup = 2 if on_cpu else 5
    asked = settings(sizes, device, batches, precision, compiled)
    held = {
        "rounds": rounds,
        "steps": steps or (CPU_STEPS if on_cpu else 20),
        "warmup_steps": warmup,
        "image": "224x224 crops of photographs",
        "one_at_a_time": one_at_a_time,
    }
    report = Report("pretrain-step", device, held, written=not quick)
    with kept_or_not(folder) as place:
        photographs = place / f"photographs-{max(64, *(setting.batch for setting in asked))}"
        if not photographs.exists():
            write_images(photographs, int(photographs.name.split("-")[1]))
        material = make_material(place, photographs, device)
        for setting in asked:
            used = {name: peak_memory_mb(setting, material, name) for name in chosen(setting)} if memory else {}
            timed = steps or (1 if quick else CPU_STEPS[setting.size] if on_cpu else 20)
            turns = measure(setting, material, rounds=rounds, warmup=warmup, steps=timed, one_at_a_time=one_at_a_time)
            report.add(setting.size, summarise(setting, turns, used))


if __name__ == "__main__":
    main()
