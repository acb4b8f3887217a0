"""Stage one: run a frozen teacher once over deterministic views and write its latents to a store."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from caev2.errors import SourceError, StoreError
from caev2.extract.calibrate import calibrate
from caev2.extract.catalog import load_teacher, parse_name
from caev2.extract.latents import are_storable, latents_of_unit
from caev2.extract.plan import plan, plan_store, read_store_there, refuse_too_large, say_plan
from caev2.extract.prepare import PreparedImage, prepare_images
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teacher import Teacher
from caev2.progress import Progress, Silent
from caev2.store.disk import try_writing
from caev2.store.images import ImageSource, open_images
from caev2.store.layout import SCRATCH
from caev2.store.manifest import Manifest
from caev2.store.writer import StoreWriter, is_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractResult:
    """What an extraction did."""

    store: Path
    images: int
    views: int
    rows_computed: int
    """Rows the teacher computed now; 0 if the store was already whole."""
    failures: tuple[tuple[str, str], ...]
    """Key and reason of each undecodable image."""
    root_digest: str | None


def extract(
    images: ImageSource | Path | str,
    store: Path | str,
    recipe: ExtractRecipe,
    *,
    teacher: Teacher | None = None,
    calibration: Path | str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ExtractResult:
    """Make a store of targets, or finish one that was interrupted.

    The same command again goes on with the units that have no record; it ends in the same bytes as an undisturbed run.
    A store that is whole is not written to, and needs no teacher, unless one is given or its file is named.

    Args:
        images: A source, or a folder of images; of a folder with `train` and `val` below it, `train` is used.
        store: Folder of the store.
        recipe: Views, teacher and codec.
        teacher: Use this one instead of loading the one the recipe names.
        calibration: A store of the same teacher and codec whose tables are used; none: the codec is calibrated.
        device: Where the teacher runs, as torch spells it.
        progress: Who is told.

    Raises:
        SourceError: No images, or more undecodable ones than the recipe allows.
        StoreMismatch: Another store lies at the path.
        StoreError: The codec is not faithful enough to this teacher.
        TeacherError: The teacher cannot be loaded.
        OutputError: The store cannot be written or would not fit.
    """
    progress = progress or Silent()
    source = images if isinstance(images, ImageSource) else open_images(images)
    store = Path(store)
    there = read_store_there(source, store, recipe, teacher=teacher, device=device)
    whole = there is not None and is_whole(store, there)
    if there is not None and whole and teacher is None and not _names_a_file(recipe.teacher):
        progress.say(_say_whole(there))
        return _result(store, there, rows_computed=0)
    if not whole:
        try_writing(store, store / SCRATCH)
    teacher = teacher or load_teacher(
        recipe.teacher, device=device, precision=recipe.precision, image_px=recipe.teacher_px
    )
    planned = plan(source, store, recipe, teacher)
    refuse_too_large(planned)
    writer = StoreWriter(store, plan_store(source, recipe, teacher), source.listing())
    try:
        progress.say(f"extract: {say_plan(planned)}")
        tables_of = None if calibration is None else Path(calibration)
        try:
            calibrate(writer, source, recipe, teacher, tables_of=tables_of, device=device, progress=progress)
        except StoreError:
            writer.withdraw()  # a store that has just begun: nothing is left of it
            raise
        computed = _write_units(writer, source, recipe, teacher, device, progress)
        manifest = writer.seal()
    finally:
        writer.close()
    return _result(store, manifest, rows_computed=computed)


def _names_a_file(teacher: str) -> bool:
    """Whether the weights are at hand, so that a store can be compared with them."""
    path = parse_name(teacher).path
    return path is not None and path.exists()


def _say_whole(there: Manifest) -> str:
    teachers = {(target.teacher["name"], target.teacher["sha256"][:16]) for target in there.spec.targets.values()}
    named = ", ".join(f"{name} (sha256 {digest}...)" for name, digest in sorted(teachers))
    return f"extract: the store is whole already. Its teacher is {named}; its weights were not loaded to compare them."


def _result(store: Path, manifest: Manifest, rows_computed: int) -> ExtractResult:
    return ExtractResult(
        store=store,
        images=manifest.images,
        views=manifest.views,
        rows_computed=rows_computed,
        failures=manifest.failures,
        root_digest=manifest.root_digest,
    )


def _write_units(
    writer: StoreWriter,
    source: ImageSource,
    recipe: ExtractRecipe,
    teacher: Teacher,
    device: str,
    progress: Progress,
) -> int:
    """Compute every unit that has no record; the number of rows the teacher computed."""
    manifest, pending = writer.manifest, writer.pending()
    failed = list(writer.failures())
    total, todo = len(source), sum(len(manifest.images_of_block(block)) for block in pending)
    if pending:
        progress.start("extract", total * manifest.views, (total - todo) * manifest.views)
    clock = _Clock(rows=todo * manifest.views, batch=recipe.teacher_batch, progress=progress)
    computed = 0
    views = range(manifest.first_view, manifest.first_view + manifest.views)
    prepared = prepare_images(source, _numbers(writer, pending), recipe.views, views, recipe.workers, recipe.crops)
    for block, images in itertools.groupby(prepared, lambda image: image.number // manifest.spec.block_images):
        if writer.is_done(block):  # by another writer, while its first images were prepared
            progress.advance(len(manifest.images_of_block(block)) * manifest.views)
            continue
        latents = latents_of_unit(images, teacher, recipe.taps, recipe.teacher_batch, device)
        with writer.unit(block) as unit:
            for image, rows in latents:
                computed += len(image.views)
                image = _mark_unstorable(image, rows)
                if image.facts.reason:
                    failed.append((source.keys[image.number], image.facts.reason))
                    _refuse_too_many(failed, total, recipe.max_failed)
                unit.add_image(
                    image.facts, image.rendered(), {recipe.target_name(tap): values for tap, values in rows.items()}
                )
                progress.advance(manifest.views)
                clock.tell_once(computed)
            unit.finish()
    progress.finish()
    _refuse_too_many(writer.failures(), total, recipe.max_failed)  # those of other writers too
    return computed


def _numbers(writer: StoreWriter, pending: Iterable[int]) -> Iterator[int]:
    """The images to prepare; of a unit that another writer has finished when its turn comes, none."""
    for block in pending:
        if not writer.is_done(block):
            yield from writer.manifest.images_of_block(block)


class _Clock:
    """Says once how long an extraction will take, measured after the first batch, which warms everything up.

    Args:
        rows: To be computed.
        batch: Rows in a batch.
        progress: Who is told.
    """

    def __init__(self, *, rows: int, batch: int, progress: Progress):
        self._rows, self._batch, self._progress = rows, batch, progress
        self._warm: tuple[int, float] | None = None
        self._told = False

    def tell_once(self, computed: int) -> None:
        """Take notice that some rows are computed."""
        if self._told or computed < self._batch:
            return
        if self._warm is None:
            self._warm = computed, time.monotonic()
            return
        rows, seconds = computed - self._warm[0], time.monotonic() - self._warm[1]
        if rows < self._batch or seconds < _LEAST_SECONDS:
            return
        self._told = True
        left = timedelta(seconds=round((self._rows - computed) * seconds / rows))
        self._progress.say(f"extract: about {left} to go, at {rows / seconds:,.1f} rows/s so far")


_LEAST_SECONDS = 2.0  # work of a moment needs no estimate


def _mark_unstorable(image: PreparedImage, rows: dict) -> PreparedImage:
    if are_storable(rows):
        return image
    facts = dataclasses.replace(image.facts, reason="the teacher's latents are not finite in float16")
    return dataclasses.replace(image, facts=facts)


def _refuse_too_many(failed: Sequence[tuple[str, str]], images: int, share: float) -> None:
    if len(failed) > share * images:
        listed = "; ".join(f"{key}: {reason}" for key, reason in failed[:3])
        raise SourceError(
            f"{len(failed)} of {images} images cannot be used, more than the allowed share of {share:g}. The first: "
            f"{listed}. Repair or remove them, or allow more with --set max_failed=0.5."
        )
