"""Running the teacher over the views of a unit, in batches whose cuts depend on nothing but the unit.

A teacher's last bits depend on the batch a view is computed in. Batches are therefore cut inside a unit, at a fixed
size, the last one padded: the same unit gives the same bytes whoever computes it, and whenever.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from caev2.extract.prepare import PreparedImage
from caev2.extract.teacher import Teacher
from caev2.store.codecs.directions import NORM_LIMIT

Latents = dict[str, Float16[np.ndarray, "view token width"]]


def latents_of_unit(
    images: Iterable[PreparedImage],
    teacher: Teacher,
    taps: Sequence[str],
    batch: int,
    device: str,
) -> Iterator[tuple[PreparedImage, Latents]]:
    """The latents of each image of a unit, in order; an undecodable image has none.

    Args:
        images: All images of the unit.
        teacher: The frozen model.
        taps: Where its latents are taken.
        batch: Views in one forward pass.
        device: Where the teacher is.
    """
    waiting: deque[PreparedImage] = deque()
    crops: deque[Tensor] = deque()
    rows: dict[str, deque[np.ndarray]] = {tap: deque() for tap in taps}

    def forward(count: int) -> None:
        stacked = _stack([crops.popleft() for _ in range(count)], batch)
        for tap, tokens in teacher.tokens(stacked.to(device, non_blocking=True), taps).items():
            rows[tap].extend(tokens[:count].to(torch.float16).cpu().numpy())

    def complete() -> Iterator[tuple[PreparedImage, Latents]]:
        while waiting and len(rows[taps[0]]) >= len(waiting[0].views):
            image = waiting.popleft()
            yield image, {tap: _take(rows[tap], len(image.views)) for tap in taps if image.views}

    for image in images:
        waiting.append(image)
        crops.extend(image.crops)
        while len(crops) >= batch:
            forward(batch)
        yield from complete()
    if crops:
        forward(len(crops))
    yield from complete()


def _stack(crops: list[UInt8[Tensor, "size size 3"]], batch: int) -> UInt8[Tensor, "image size size 3"]:
    """A batch of exactly `batch` crops, filled up with black ones."""
    stacked = torch.zeros((batch, *crops[0].shape), dtype=torch.uint8)
    torch.stack(crops, out=stacked[: len(crops)])
    return stacked


def _take(rows: deque[np.ndarray], count: int) -> np.ndarray:
    return np.stack([rows.popleft() for _ in range(count)])


def are_storable(latents: Latents) -> bool:
    """Whether every latent of an image is finite and has a norm that float16 can hold, as every codec asks."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(
            bool((np.linalg.norm(rows.astype(np.float32), axis=-1) < NORM_LIMIT).all()) for rows in latents.values()
        )
