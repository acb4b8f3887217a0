"""What pays in a training step: precision, compilation, and forms of attention, side by side.

    python benchmarks/step_choices.py [--device cuda] [--sizes tiny small] [--rounds 5]

For each size, the step of `caev2.pretrain.learning.step` on random images and latents, in fp32 and bf16, as it is and
compiled, in turns; images a second, and seconds until the first step is done. For each head of the published sizes (8,
16, 32 and 64 channels, 12 heads), one attention forward and backward: torch's fused kernel, the same with heads padded
to twice their channels, and softmax written out; milliseconds. Compiling a base student on a CPU takes some 10 GB of
memory, so base is not compiled there. Writes benchmarks/results/step-choices-DATE.json.
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pretraining.setting import describe_machine
from torch import Tensor
from torch.nn import functional

from caev2.pretrain.learning.step import Objective, TrainStep, tensor_cores
from caev2.pretrain.recipes import RECIPES, PretrainRecipe
from caev2.pretrain.student.model import branch_rates, build
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.supply.keep import keep_bits
from caev2.pretrain.supply.masks import draw_masks
from caev2.terminal import print_table

RESULTS = Path(__file__).parent / "results"
IMAGES = {
    "cpu": {"tiny": 32, "small": 16, "base": 8, "large": 4},
    "cuda": dict.fromkeys(("tiny", "small", "base", "large"), 256),
}
HEADS = {8: 197, 16: 167, 32: 148, 64: 99}
"""Channels of a head, and tokens that it meets: regressor and encoder of tiny, small, base."""


class Made:
    """Images and latents that are there already: decoding them is another benchmark's matter."""

    def __init__(self, images: int, device: str):
        chance = torch.Generator().manual_seed(0)
        self.images = torch.randn(images, 3, 224, 224, generator=chance).to(device)
        self.latents = torch.randn(images, 197, 512, generator=chance).to(device)

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same ones for every batch."""
        return self.images, self.latents

    def compile(self) -> None:
        """There is nothing to compile."""


def batch_of(recipe: PretrainRecipe, images: int, device: str) -> Batch:
    rows = np.arange(images)
    visible, masked = draw_masks(recipe.mask, recipe.model.grid_size, 0, 0, rows)
    return Batch(
        step=0,
        epoch=0,
        view=0,
        rows=torch.from_numpy(rows),
        crops=torch.zeros((images, 224, 224, 3), dtype=torch.uint8),
        targets=torch.zeros((images, 197, 512), dtype=torch.float16),
        visible=torch.from_numpy(visible),
        masked=torch.from_numpy(masked),
        keep=torch.from_numpy(keep_bits(0, 0, 0, rows, branch_rates(recipe.model))),
        drifted=None,
    ).to(device)


def finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_in_turns(works: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            finish(device)
            begun = time.perf_counter()
            work()
            finish(device)
            found[name].append(time.perf_counter() - begun)
    return found


def time_steps(size: str, device: str, rounds: int) -> list[dict]:
    recipe, images = RECIPES[f"{size}-300e"], IMAGES[device.split(":")[0]][size]
    made, batch = Made(images, device), batch_of(recipe, images, device)
    works, first = {}, {}
    for precision in ("fp32", "bf16"):
        for compiled in (False, True):
            if compiled and device == "cpu" and size in ("base", "large"):
                continue
            name = f"{precision}{', compiled' if compiled else ''}"
            student = build(recipe.model, 0).to(device)
            step = TrainStep(
                Objective(student, precision=precision), adamw(student), made, clip_norm=3.0, compiled=compiled
            )
            begun = time.perf_counter()
            step(batch, 1e-4)
            finish(device)
            first[name] = time.perf_counter() - begun
            works[name] = lambda step=step: step(batch, 1e-4)
    found = seconds_in_turns(works, rounds, device)
    return [
        {
            "size": size,
            "how": name,
            "images": images,
            "images_per_s": images / statistics.median(seconds),
            "least": images / max(seconds),
            "most": images / min(seconds),
            "first_step_s": first[name],
        }
        for name, seconds in found.items()
    ]


def time_attention(channels: int, tokens: int, images: int, device: str, rounds: int) -> list[dict]:
    chance = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(images, tokens, 12 * channels, generator=chance).to(device).requires_grad_()
        .unflatten(-1, (12, channels)).transpose(1, 2)
        for _ in range(3)
    )  # fmt: skip
    gradient = torch.randn(images, 12, tokens, channels, generator=chance).to(device)

    def back(attended: Tensor) -> object:
        return torch.autograd.grad(attended, (query, key, value), gradient)

    def padded() -> object:
        wide = [functional.pad(part, (0, channels)) for part in (query, key, value)]
        return back(functional.scaled_dot_product_attention(*wide, scale=channels**-0.5)[..., :channels])

    works = {
        "fused": lambda: back(functional.scaled_dot_product_attention(query, key, value)),
        "padded to twice": padded,
        "written out": lambda: back(((query * channels**-0.5) @ key.transpose(-1, -2)).softmax(-1) @ value),
    }
    for work in works.values():
        work()
    found = seconds_in_turns(works, rounds, device)
    return [
        {"channels": channels, "tokens": tokens, "how": name, "ms": 1000 * statistics.median(seconds)}
        for name, seconds in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tensor_cores(chosen.device):
        steps = [one for size in chosen.sizes for one in time_steps(size, chosen.device, chosen.rounds)]
        images = 16 if chosen.device == "cpu" else 256
        attention = [
            one for pair in HEADS.items() for one in time_attention(*pair, images, chosen.device, chosen.rounds)
        ]
    print_table(
        "A training step",
        ("size", "how", "images/s", "least-most", "first step, s"),
        [
            (one["size"], one["how"], f"{one['images_per_s']:.1f}", f"{one['least']:.1f}-{one['most']:.1f}",
             f"{one['first_step_s']:.0f}")
            for one in steps
        ],
    )  # fmt: skip
    print_table(
        "An attention, forward and backward",
        ("channels of a head", "tokens", "how", "ms"),
        [(str(one["channels"]), str(one["tokens"]), one["how"], f"{one['ms']:.1f}") for one in attention],
    )
    date = str(datetime.datetime.now(datetime.UTC).date())
    content = {
        "date": date, **describe_machine(), **vars(chosen), "steps": steps, "attention": attention,
    }  # fmt: skip
    result = RESULTS / f"step-choices-{date}.json"
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {result.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
