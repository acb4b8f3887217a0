"""The plain loop with a teacher in it: how pre-training is usually written, in eager PyTorch.

Each step decodes source images, jitters them whole, mirrors them and cuts one box that is resized twice, for student
and teacher; the teacher runs without gradients outside of autocast; the loss is read by the host in every step. On a
GPU the student computes in fp16 under autocast with a gradient scaler, on a CPU in fp32. AdamW is torch's default.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.transforms import functional as pixels

from caev2.extract.teachers.openclip import OpenClipTeacher
from caev2.extract.teachers.teacher import Statistics
from caev2.pretrain.learning.step import IMAGENET_MEAN, IMAGENET_STD
from caev2.pretrain.student.parameters import parameter_groups, set_learning_rate

from .plain_student import PlainStudent, plain_loss, plain_targets

CLIP_NORM, LR = 3.0, 1e-4
CROP_SCALE, CROP_RATIO = (0.4, 1.0), (3 / 4, 4 / 3)
MIN_BLOCK_PATCHES, MIN_ASPECT = 16, 0.3
SAMPLE = tuple[Tensor, Tensor, np.ndarray]


def block_mask(count: int, grid: int) -> Bool[np.ndarray, "grid grid"]:
    """Rectangles until exactly so many patches are masked, from Python's own generator."""
    mask, left = np.zeros((grid, grid), dtype=bool), count
    while left:
        area = random.uniform(MIN_BLOCK_PATCHES, left)
        aspect = math.exp(random.uniform(math.log(MIN_ASPECT), -math.log(MIN_ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid or width >= grid:
            continue
        top, start = random.randint(0, grid - height), random.randint(0, grid - width)
        rectangle = mask[top : top + height, start : start + width]
        fresh = rectangle.size - int(rectangle.sum())
        if 0 < fresh <= left:
            rectangle[:] = True
            left -= fresh
    return mask


class PlainImages(Dataset):
    """Source images, each with two normalised crops of one box and a mask."""

    def __init__(self, folder: Path, size_px: int, masked: int, grid: int, teacher_pixels: Statistics):
        self.paths = sorted(folder.iterdir())
        self.size_px, self.masked, self.grid = size_px, masked, grid
        self.colours = transforms.Compose([transforms.ColorJitter(0.4, 0.4, 0.4), transforms.RandomHorizontalFlip()])
        self.student, self.teacher = (
            transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
            for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), teacher_pixels)
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> SAMPLE:
        """One image, anew each time."""
        with Image.open(self.paths[index]) as file:
            image: Any = self.colours(file.convert("RGB"))  # torchvision's types name tensors alone
        box = transforms.RandomResizedCrop.get_params(image, list(CROP_SCALE), list(CROP_RATIO))
        seen, shown = (
            pixels.resized_crop(image, *box, [self.size_px] * 2, transforms.InterpolationMode.BICUBIC) for _ in range(2)
        )
        return self.student(seen), self.teacher(shown), block_mask(self.masked, self.grid)


def plain_batches(
    images: PlainImages, batch: int, steps: int, workers: int, *, pin_memory: bool
) -> Iterator[list[Tensor]]:
    """Batches from torch's loader: images of the student and of the teacher, masks."""
    loader = DataLoader(
        images,
        batch_size=batch,
        sampler=RandomSampler(images, replacement=True, num_samples=steps * batch),
        num_workers=workers,
        pin_memory=pin_memory,
        drop_last=True,
    )
    yield from loader


class PlainLoop:
    """A step of the plain loop; also of its student alone."""

    def __init__(self, student: PlainStudent, device: str):
        self.student, self.kind = student.to(device).train(), torch.device(device).type
        self.device, self.mixed = device, self.kind == "cuda"
        self.optimizer = torch.optim.AdamW(parameter_groups(student, 0.05), lr=0.0)
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.mixed)

    def step(
        self,
        images: Float[Tensor, "image 3 size size"],
        latents: Float[Tensor, "image token width"],
        mask: Bool[Tensor, "image patch"],
    ) -> float:
        """Train on latents that are there; the loss."""
        set_learning_rate(self.optimizer, LR)
        with torch.autocast(self.kind, torch.float16, enabled=self.mixed):
            loss = plain_loss(self.student(images, mask), plain_targets(latents, mask))
        value = loss.item()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def step_with(self, teacher: OpenClipTeacher, batch: list[Tensor]) -> float:
        """Train on a batch of the loader, with the latents of a live teacher."""
        images, shown, masks = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        latents = teacher.tokens_of_pixels(shown, ["projected"])["projected"]
        return self.step(images, latents, masks.flatten(1))
