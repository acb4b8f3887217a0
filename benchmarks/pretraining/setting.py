"""What is measured: a size of student, a batch, a device; and what it is compared on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from caev2.pretrain.foresight.cost import count_multiply_adds, mfu, peak_flops
from caev2.pretrain.recipes import RECIPES, PretrainRecipe

CPU_BATCH = {"tiny": 16, "small": 16, "base": 16, "large": 8}
"""Images of a step on a CPU."""
GPU_BATCH = 256
"""The published 2,048 images over 8 GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One comparison: everything in it is the same for all who are compared."""

    size: str
    """Of the student: tiny, small, base, large."""
    batch: int
    """Images of a step."""
    device: str
    precision: Literal["fp32", "bf16"]
    """In which this engine's student computes; the plain loop has its own way."""
    compiled: bool
    """Whether this engine's step is compiled."""

    @property
    def recipe(self) -> PretrainRecipe:
        """The published one."""
        return RECIPES[f"{self.size}-300e"]

    @property
    def on_gpu(self) -> bool:
        """Whether the device computes by itself while the host goes on."""
        return torch.device(self.device).type == "cuda"

    @property
    def forward_gmac(self) -> float:
        """Billion multiply-adds of the student's forward pass for one image."""
        return count_multiply_adds(self.recipe.model, self.recipe.mask.count).total / 1e9

    def mfu(self, images_per_s: float) -> float | None:
        """Share of the card's peak that the student's arithmetic takes; none on a CPU or an unknown card."""
        peak = peak_flops(torch.cuda.get_device_name(self.device)) if self.on_gpu else None
        return None if peak is None else mfu(self.forward_gmac, images_per_s, peak)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the comparison is made on, as files."""

    photographs: Path
    """Folder of source JPEGs."""
    archive: Path
    """A CLIP ViT-B/16 with fixed random weights."""
    store: Path
    """Of that teacher over those images, with its crops."""

    @property
    def teacher_name(self) -> str:
        """What loads it."""
        return f"openclip:ViT-B-16-quickgelu@{self.archive}"


def machine() -> str:
    """What it runs on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = f"{len(os.sched_getaffinity(0))} cores of {models[0].split(':')[1].strip() if models else 'a CPU'}"
    return f"{cpu}, 1x {torch.cuda.get_device_name()}" if torch.cuda.is_available() else cpu


def describe_machine() -> dict:
    """The same, and what runs on it."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "machine": machine(),
        "memory_gb": round(memory_gb),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
