"""Stage one: run a frozen teacher once over deterministic views and write its latents to a store."""

from dataclasses import dataclass
from pathlib import Path

import torch

from caev2.errors import OutputError, StoreError
from caev2.extract.engines.engine import Engine
from caev2.extract.engines.one_device import OneDevice
from caev2.extract.job import Job
from caev2.extract.parts import Part
from caev2.extract.planning.plan import plan, read_store_there, refuse_too_large, say_plan
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.shown import tell_sizes
from caev2.extract.tally import Tally
from caev2.extract.teachers.catalog import parse_name
from caev2.extract.teachers.teacher import Teacher, default_precision
from caev2.progress import Progress, Silent
from caev2.store.disk import try_writing
from caev2.store.images import ImageSource, Place, open_images
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
    """None while other parts of the store are missing."""
    missing_units: int = 0
    """Units that other parts have yet to compute."""


def extract(
    images: ImageSource | Place,
    store: Path | str,
    recipe: ExtractRecipe,
    *,
    teacher: Teacher | None = None,
    calibration: Path | str | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
    part: Part | None = None,
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
        engine: Who computes; none: this process on `device`. The files do not depend on it.
        part: Compute a part of the units only; whichever part is done last seals the store.
        progress: Who is told.

    Raises:
        SourceError: No images, or more undecodable ones than the recipe allows.
        StoreMismatch: Another store lies at the path.
        StoreError: The codec is not faithful enough to this teacher.
        TeacherError: The teacher cannot be loaded.
        OutputError: The store cannot be written or would not fit.
    """
    progress, engine = progress or Silent(), engine or OneDevice(device)
    source = images if isinstance(images, ImageSource) else open_images(images)
    store = Path(store)
    there = read_store_there(source, store, recipe, teacher=teacher, device=engine.device)
    whole = there is not None and is_whole(store, there)
    if there is not None and whole and teacher is None and not _names_a_file(recipe.teacher):
        progress.say(_say_whole(there))
        return _result(store, there, there.failures, rows_computed=0)
    if not whole:
        try_writing(store, store / SCRATCH)
    job = Job(
        source=source,
        store=store.absolute(),
        recipe=recipe,
        precision=recipe.precision or default_precision(engine.device),
        workers=engine.workers(recipe.workers),
        threads=torch.get_num_threads(),
        teacher=teacher,
        tables_of=None if calibration is None else Path(calibration).absolute(),
    )
    teacher = job.load_teacher(engine.own_device)
    planned = plan(source, store, recipe, teacher)
    refuse_too_large(planned)
    writer = job.open_store(teacher)
    try:
        progress.say(f"extract: {say_plan(planned)}")
        tell_sizes(recipe, teacher.description, progress)
        try:
            engine.calibrate(job, writer, teacher, progress)
        except StoreError:
            writer.withdraw()  # a store that has just begun: nothing is left of it
            raise
        computed = _compute(engine, job, writer, teacher, part, progress)
        missing = writer.pending()
        if missing and part is None:
            raise OutputError(
                f"{len(missing)} of {writer.manifest.blocks} units of {store} are missing, though all were computed: "
                "somebody removes them, or the disk loses them. Run the same command again."
            )
        if missing:
            progress.say(_say_missing(len(missing), writer.manifest))
            return _result(store, writer.manifest, writer.failures(), rows_computed=computed, missing=len(missing))
        manifest = writer.seal()
    finally:
        writer.close()
    return _result(store, manifest, manifest.failures, rows_computed=computed)


def _names_a_file(teacher: str) -> bool:
    """Whether the weights are at hand, so that a store can be compared with them."""
    path = parse_name(teacher).path
    return path is not None and path.exists()


def _say_whole(there: Manifest) -> str:
    teachers = {
        (target.teacher["name"], target.teacher["image_px"], target.teacher["sha256"][:16])
        for target in there.spec.targets.values()
    }
    named = ", ".join(f"{name} at {px} pixels (sha256 {digest}...)" for name, px, digest in sorted(teachers))
    return f"extract: the store is whole already. Its teacher is {named}; its weights were not loaded to compare them."


def _say_missing(missing: int, manifest: Manifest) -> str:
    return (
        f"extract: this part is done; {missing} of {manifest.blocks} units are missing and left to other parts. The "
        "one that is done last seals the store; the command without --part computes whatever is missing."
    )


def _result(
    store: Path, manifest: Manifest, failures: tuple[tuple[str, str], ...], *, rows_computed: int, missing: int = 0
) -> ExtractResult:
    return ExtractResult(
        store=store,
        images=manifest.images,
        views=manifest.views,
        rows_computed=rows_computed,
        failures=failures,
        root_digest=manifest.root_digest,
        missing_units=missing,
    )


def _compute(
    engine: Engine, job: Job, writer: StoreWriter, teacher: Teacher, part: Part | None, progress: Progress
) -> int:
    """Have every unit computed that has no record, or those of a part; the number of rows the teacher computed."""
    manifest = writer.manifest
    blocks = list(range(manifest.blocks)) if part is None else part.choose(range(manifest.blocks), manifest.blocks)
    pending = writer.pending() if part is None else part.choose(writer.pending(), manifest.blocks)
    total, todo = (sum(len(manifest.images_of_block(block)) for block in some) for some in (blocks, pending))
    failed = dict(writer.failures())
    tally = Tally(
        images=len(job.source),
        max_failed=job.recipe.max_failed,
        failed=failed,
        rows=todo * manifest.views,
        batch=job.recipe.teacher_batch,
        progress=progress,
    )
    tally.refuse_too_many(failed)
    if pending:
        progress.start("extract", total * manifest.views, (total - todo) * manifest.views)
        engine.compute(job, writer, teacher, pending, tally, progress)
    progress.finish()
    tally.refuse_too_many(dict(writer.failures()))  # those of other writers too
    return tally.rows_computed
