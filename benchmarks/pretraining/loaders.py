"""Where batches come from end to end: a store, or source images that are decoded for every step."""

import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from caev2.online.fresh_crops import FreshCrops
from caev2.pretrain.supply.batches import Batch
from caev2.pretrain.supply.feed import on_device
from caev2.pretrain.supply.loading import cores, load_adaptively, load_batches
from caev2.store.images import open_images
from caev2.store.pixels.views import ViewSettings

from .contenders import LIVE_BF16, PLAIN, STORE, Bench
from .plain_loop import PlainImages, plain_batches


@dataclass(frozen=True, slots=True)
class Loop:
    """One contender's way from files to trained weights."""

    load: Callable[[int], Generator[Any]]
    """So many batches, as they come from the loader."""
    feed: Callable[[Iterator[Any]], Iterator[Any]]
    """The same batches where the step wants them."""
    step: Callable[[Any], object]


def loop_of(name: str, bench: Bench, workers: int | None) -> Loop:
    """The loop of a contender.

    Args:
        name: Whose.
        bench: On what.
        workers: Processes of each loader; none: all cores but one beside a GPU; on a CPU one for decoding, and what
            the library chooses for a store.
    """
    if workers is None and bench.setting.on_gpu:
        workers = max(1, cores() - 1)
    decoding = 1 if workers is None else workers
    if name == PLAIN:
        return _plain_loop(bench, decoding)
    pin, device = bench.setting.on_gpu, bench.device
    if name == STORE:

        def load(steps: int) -> Generator[Batch]:
            yield from load_adaptively(bench.stored, range(steps), workers, device=device)

        return Loop(load, lambda batches: on_device(batches, device), bench.learn_stored())
    crops = FreshCrops(open_images(bench.material.photographs), ViewSettings(size_px=bench.recipe.model.image_px))
    fresh = dataclasses.replace(bench.stored, store=None, crops=crops)

    def load_fresh(steps: int) -> Generator[Batch]:
        yield from load_batches(fresh, range(steps), decoding, pin_memory=pin)

    return Loop(load_fresh, lambda batches: on_device(batches, device), bench.learn_live(fast=name == LIVE_BF16))


def _plain_loop(bench: Bench, workers: int) -> Loop:
    model, about = bench.recipe.model, bench.teacher.description
    images = PlainImages(
        bench.material.photographs, model.image_px, bench.recipe.mask.count, model.grid_size, (about.mean, about.std)
    )

    def load(steps: int) -> Generator[Any]:
        yield from plain_batches(images, bench.setting.batch, steps, workers, pin_memory=bench.setting.on_gpu)

    return Loop(load, lambda batches: batches, lambda batch: bench.plain.step_with(bench.teacher, batch))
