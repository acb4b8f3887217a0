"""Where batches come from end to end: a store, or source images that are decoded for every step."""

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from caev2.pretrain.batches import Batch
from caev2.pretrain.feed import on_device
from caev2.pretrain.keep import keep_bits
from caev2.pretrain.loading import load_adaptively
from caev2.pretrain.masks import draw_masks
from caev2.pretrain.model import branch_rates
from caev2.pretrain.order import RowOrder
from caev2.pretrain.recipes import PretrainRecipe
from caev2.store.images import ImageSource, open_images
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import ViewSettings, render_views
from caev2.workers import in_order

from .contenders import LIVE_BF16, PLAIN, STORE, Bench, live
from .plain_loop import PlainImages, plain_batches


@dataclass(frozen=True, slots=True)
class Loop:
    """One contender's way from files to trained weights."""

    load: Callable[[int], Generator[Any]]
    """So many batches, as they come from the loader."""
    feed: Callable[[Iterator[Any]], Iterator[Any]]
    """The same batches where the step wants them."""
    step: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class FreshBatches:
    """Batches without targets whose crops are drawn for their step, by the same code that extraction has."""

    source: ImageSource
    order: RowOrder
    recipe: PretrainRecipe

    def batch_of(self, step: int) -> Batch:
        """The batch of one step."""
        recipe, rows, epoch = self.recipe, self.order.rows_of(step), self.order.epoch_of(step)
        visible, masked = draw_masks(recipe.mask, recipe.model.grid_size, recipe.seed, epoch, rows)
        keep = keep_bits(recipe.seed, epoch, step, rows, branch_rates(recipe.model))
        crops = np.stack([self._crop(int(row), step) for row in rows])
        return Batch(
            step=step,
            epoch=epoch,
            view=0,
            rows=torch.from_numpy(np.asarray(rows)),
            crops=torch.from_numpy(crops),
            targets=torch.empty(0),
            visible=torch.from_numpy(visible),
            masked=torch.from_numpy(masked),
            keep=torch.from_numpy(keep),
            drifted=None,
        )

    def _crop(self, row: int, step: int) -> np.ndarray:
        image = decode_rgb(self.source.read(row))
        settings = ViewSettings(size_px=self.recipe.model.image_px)
        return next(crop for _, crop in render_views(settings, self.source.keys[row], [step], image))


def loop_of(name: str, bench: Bench, workers: int | None) -> Loop:
    """The loop of a contender.

    Args:
        name: Whose.
        bench: On what.
        workers: Processes of each loader; none: as many as the library sees need of for a store, and for decoding one
            on a CPU, and all cores but one beside a GPU.
    """
    decoding = workers if workers is not None else len(os.sched_getaffinity(0)) - 1 if bench.setting.on_gpu else 1
    if name == PLAIN:
        return _plain_loop(bench, decoding)
    pin, device = bench.setting.on_gpu, bench.device
    if name == STORE:

        def load(steps: int) -> Generator[Batch]:
            yield from load_adaptively(bench.stored, range(steps), workers, device=device)

        return Loop(load, lambda batches: on_device(batches, device), bench.engine.step(bench.decoder))
    fresh = FreshBatches(open_images(bench.material.photographs), bench.stored.order, bench.recipe)

    def load_fresh(steps: int) -> Generator[Batch]:
        yield from in_order(fresh.batch_of, range(steps), workers=decoding, pin_memory=pin)

    return Loop(load_fresh, lambda batches: on_device(batches, device), live(bench, fast=name == LIVE_BF16))


def _plain_loop(bench: Bench, workers: int) -> Loop:
    model, about = bench.recipe.model, bench.teacher.description
    images = PlainImages(
        bench.material.photographs, model.image_px, bench.recipe.mask.count, model.grid_size, (about.mean, about.std)
    )

    def load(steps: int) -> Generator[Any]:
        yield from plain_batches(images, bench.setting.batch, steps, workers, pin_memory=bench.setting.on_gpu)

    return Loop(load, lambda batches: batches, lambda batch: bench.plain.step_with(bench.teacher, batch))
