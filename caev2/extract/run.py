"""Stage one: run a frozen teacher once over deterministic views and write its latents to a store."""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import OutputError, SourceError, TeacherError
from caev2.extract.catalog import load_teacher
from caev2.extract.latents import are_finite, latents_of_unit
from caev2.extract.prepare import PreparedImage, prepare_images
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teacher import Teacher, default_precision
from caev2.progress import Progress, Silent
from caev2.recipe import choose, to_mapping
from caev2.store.disk import free_bytes, say_bytes
from caev2.store.images import ImageSource, open_images
from caev2.store.manifest import Manifest, StoreSpec, TargetSpec
from caev2.store.records import read_record
from caev2.store.writer import StoreWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractPlan:
    """What an extraction will write, known before it starts."""

    images: int
    views: int
    rows: int
    """Images × views."""
    bytes: int
    """Size of the targets on disk."""
    free_bytes: int
    """Free space where the store will lie."""
    teacher: str
    targets: dict[str, tuple[int, int]]
    """Tokens and width of each target."""


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
    device: str = "cpu",
    progress: Progress | None = None,
) -> ExtractResult:
    """Make a store of targets, or finish one that was interrupted.

    The same command again goes on with the units that have no record; it ends in the same bytes as an undisturbed run.

    Args:
        images: A source, or a folder of images; of a folder with `train` below it, that part is used.
        store: Folder of the store.
        recipe: Views, teacher and codec.
        teacher: Use this one instead of loading the one the recipe names.
        device: Where the teacher runs, as torch spells it.
        progress: Who is told.

    Raises:
        SourceError: No images, or more undecodable ones than the recipe allows.
        StoreMismatch: Another store lies at the path.
        TeacherError: The teacher cannot be loaded.
        OutputError: The store cannot be written or would not fit.
    """
    progress = progress or Silent()
    source = images if isinstance(images, ImageSource) else open_images(images)
    store = Path(store)
    teacher = teacher or load_teacher(
        recipe.teacher, device=device, precision=recipe.precision or default_precision(device)
    )
    manifest = plan_store(source, recipe, teacher)
    if not (store / "manifest.json").exists():
        _refuse_too_large(plan(source, store, recipe, teacher))
    writer = StoreWriter(store, manifest)
    try:
        computed = _write_units(writer, source, recipe, teacher, device, progress)
        manifest = writer.seal(source.keys, source.paths, source.labels)
    finally:
        writer.close()
    return ExtractResult(
        store=store,
        images=manifest.images,
        views=manifest.views,
        rows_computed=computed,
        failures=manifest.failures,
        root_digest=manifest.root_digest,
    )


def plan_store(source: ImageSource, recipe: ExtractRecipe, teacher: Teacher) -> Manifest:
    """The manifest of the store to be made.

    Raises:
        TeacherError: The teacher takes another size of crops than the recipe makes.
        ConfigError: The teacher has no such tap.
    """
    described = teacher.description
    if described.image_px != recipe.views.size_px:
        raise TeacherError(
            f"The teacher {described.name} takes crops of {described.image_px} pixels, the recipe makes "
            f"{recipe.views.size_px}. Choose another recipe, or --set views.size_px={described.image_px}."
        )
    teacher_mapping = to_mapping(described)
    widths = teacher_mapping.pop("widths")
    for tap in recipe.taps:
        choose(tap, widths, f"tap of {described.name}")
    targets = {
        tap.replace(":", "-"): TargetSpec(teacher=teacher_mapping, tap=tap, tokens=described.tokens, width=widths[tap])
        for tap in recipe.taps
    }
    spec = StoreSpec(
        views=recipe.views,
        targets=targets,
        block_images=recipe.block_images,
        teacher_batch=recipe.teacher_batch,
    )
    return Manifest(
        spec=spec,
        images=len(source),
        views=recipe.view_count,
        source_digest=source.digest(),
        classes=source.classes,
        state="building",
    )


def plan(source: ImageSource, store: Path, recipe: ExtractRecipe, teacher: Teacher) -> ExtractPlan:
    """Rows, bytes and free disk, before anything is written."""
    manifest = plan_store(source, recipe, teacher)
    rows = manifest.images * manifest.views
    return ExtractPlan(
        images=manifest.images,
        views=manifest.views,
        rows=rows,
        bytes=rows * sum(target.row_bytes + _VIEW_BYTES for target in manifest.spec.targets.values()),
        free_bytes=free_bytes(store.absolute()),
        teacher=teacher.description.name,
        targets={name: (target.tokens, target.width) for name, target in manifest.spec.targets.items()},
    )


_VIEW_BYTES = 680  # parameters, thumbnail, checksums and index entry of a row


def _refuse_too_large(wanted: ExtractPlan) -> None:
    if wanted.bytes > wanted.free_bytes:
        raise OutputError(
            f"The store would take {say_bytes(wanted.bytes)}, and {say_bytes(wanted.free_bytes)} are free. Make "
            "space, choose another disk, or take fewer views with --views."
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
    if not pending:
        return 0
    failed = _failed_before(writer, source, pending)
    order = [image for block in pending for image in manifest.images_of_block(block)]
    progress.start("extract", len(source) * manifest.views, (len(source) - len(order)) * manifest.views)
    prepared = prepare_images(source, order, recipe.views, manifest.views, recipe.workers)
    computed = 0
    for block in pending:
        numbers = manifest.images_of_block(block)
        latents = latents_of_unit(
            itertools.islice(prepared, len(numbers)), teacher, recipe.taps, recipe.teacher_batch, device
        )
        with writer.unit(block) as unit:
            for number, (image, rows) in zip(numbers, latents, strict=True):
                computed += len(image.views)
                image = _mark_non_finite(image, rows)
                if image.facts.reason:
                    failed.append((source.keys[number], image.facts.reason))
                    _refuse_too_many(failed, len(source), recipe.max_failed)
                targets = {tap.replace(":", "-"): values for tap, values in rows.items()}
                unit.add_image(image.facts, image.rendered(), targets)
                progress.advance(manifest.views)
            unit.finish()
    progress.finish()
    return computed


def _failed_before(writer: StoreWriter, source: ImageSource, pending: list[int]) -> list[tuple[str, str]]:
    """Key and reason of the unusable images in units that an earlier run finished."""
    failed = []
    for block in sorted(set(range(writer.manifest.blocks)) - set(pending)):
        record, numbers = read_record(writer.path, block), writer.manifest.images_of_block(block)
        facts = record.images if record else ()
        failed += [(source.keys[n], fact.reason) for n, fact in zip(numbers, facts, strict=True) if fact.reason]
    return failed


def _mark_non_finite(image: PreparedImage, rows: dict) -> PreparedImage:
    if are_finite(rows):
        return image
    facts = dataclasses.replace(image.facts, reason="the teacher's latents are not finite in float16")
    return dataclasses.replace(image, facts=facts)


def _refuse_too_many(failed: list[tuple[str, str]], images: int, share: float) -> None:
    if len(failed) > share * images:
        listed = "; ".join(f"{key}: {reason}" for key, reason in failed[:3])
        raise SourceError(
            f"{len(failed)} of {images} images cannot be used, more than the allowed share of {share:g}. The first: "
            f"{listed}. Repair or remove them, or allow more with --set max_failed=0.5."
        )
