"""The first work of an extraction: the teacher over a few images, so that the codec can learn and be judged.

Which images those are is a function of seed and keys over the whole source (`store.codecs.calibration`), and of
each the first view is used. The tables are written once; whoever extracts into the store, now or later, uses them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caev2.errors import StoreMismatch
from caev2.extract.crop_pool import prepare_in_order
from caev2.extract.latents import Batches, latents_of_unit
from caev2.extract.prepare import Preparation
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress
from caev2.store.codecs.calibration import choose_images, fit_codec, measure, refuse_unfaithful
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.quality import FLOORS, QualityFloor
from caev2.store.images import ImageSource
from caev2.store.reader import Store
from caev2.store.writer import StoreWriter


def calibrate(
    writer: StoreWriter,
    source: ImageSource,
    recipe: ExtractRecipe,
    teacher: Teacher,
    *,
    tables_of: Path | None,
    device: str,
    workers: int,
    progress: Progress,
) -> None:
    """Give every target of a store the tables of its codec, unless it has them.

    Args:
        writer: Of the store.
        source: All images.
        recipe: Views, codec and floor.
        teacher: The frozen model.
        tables_of: A store whose tables are taken; they are judged all the same. None: they are learned.
        device: Where the teacher runs.
        workers: Processes that decode and crop; 0: none but this one.
        progress: Who is told.

    Raises:
        StoreError: A codec is not faithful enough.
        StoreMismatch: The store `tables_of` has no tables for these targets, or this one has others.
    """
    if tables_of is not None:
        _refuse_other_tables(writer, Store(tables_of))
    if not (wanted := writer.uncalibrated()):
        return
    chosen = choose_images(source.keys, recipe.views.seed)
    calibrating = () if tables_of is not None else chosen.calibrate
    numbers = sorted({*calibrating, *chosen.held_out})
    batches = Batches(teacher, recipe.taps, recipe.teacher_batch, device, progress)
    preparation = Preparation(
        source, recipe.views, range(1), recipe.crops, teacher.description.image_px, recipe.from_crops
    )
    rows = _latents(preparation, numbers, recipe, batches, workers, progress)
    for name in wanted:
        target = writer.manifest.spec.targets[name]
        codec = codec_named(target.codec)
        fitted, judged = (_rows_of(rows[target.tap], images) for images in (calibrating, chosen.held_out))
        progress.say(f"extract: calibrating {target.codec} on {len(fitted):,} rows, judging it on {len(judged):,}")
        if tables_of is None:
            tables, quality = fit_codec(codec, fitted, judged)
        else:
            tables = Store(tables_of).tables(Store(tables_of).twin_of(target))
            quality = measure(codec, tables, judged)
        floor = recipe.floor.over(FLOORS.get(target.codec, QualityFloor()))
        refuse_unfaithful(f"{target.codec} on {name!r}", floor, quality)
        if quality is None:
            progress.warn(f"{target.codec} was not judged: no image is left that did not calibrate it.")
        writer.calibrate(name, tables, quality)


def _latents(
    preparation: Preparation,
    numbers: Sequence[int],
    recipe: ExtractRecipe,
    batches: Batches,
    workers: int,
    progress: Progress,
) -> dict[str, dict[int, np.ndarray]]:
    """The first view's row of some images, by tap and number; undecodable images have none."""
    found: dict[str, dict[int, np.ndarray]] = {tap: {} for tap in recipe.taps}
    progress.start("calibrate", len(numbers))
    prepared = prepare_in_order(preparation, numbers, workers)
    for image, latents in latents_of_unit(prepared, batches, recipe.teacher_batch):
        if latents is not None and latents.are_storable():
            for tap, rows in latents.read().items():
                found[tap][image.number] = rows[0]
        progress.advance(1)
    progress.finish()
    return found


def _rows_of(found: dict[int, np.ndarray], images: Sequence[int]) -> np.ndarray:
    """The rows of some images, in order; it may be none."""
    rows = [found[image] for image in images if image in found]
    return np.stack(rows) if rows else np.zeros((0, 1, 1), np.float16)


def _refuse_other_tables(writer: StoreWriter, other: Store) -> None:
    for target in writer.manifest.spec.targets.values():
        if not codec_named(target.codec).learns:
            continue
        theirs = other.manifest.spec.targets[other.twin_of(target)].tables
        if target.tables not in (None, theirs):
            raise StoreMismatch(
                f"{writer.path} has tables of its own already ({target.tables}), {other.path} others ({theirs}). Go on "
                "without --calibration, or give another path for the new store."
            )
