"""What an extraction will write and whether it can, decided before anything is spent on it.

Two rounds of refusals: what needs no teacher (the place, the store that lies there) comes before its weights are
loaded; what needs its identity and sizes comes after, and before anything is written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caev2.errors import OutputError, TeacherError
from caev2.extract.catalog import parse_name
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teacher import Teacher, default_precision
from caev2.recipe import choose, to_mapping
from caev2.store.codecs.calibration import choose_images
from caev2.store.disk import free_bytes, say_bytes
from caev2.store.images import ImageSource
from caev2.store.manifest import (
    FILE_NAME,
    SOURCE_FACT,
    Manifest,
    StoreSpec,
    TargetSpec,
    facts_of,
    flatten,
    read_manifest,
    refuse_other_facts,
    tables_of,
    with_tables,
)
from caev2.store.records import is_done
from caev2.store.writer import check_place


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractPlan:
    """What an extraction will write, known before it starts."""

    images: int
    views: int
    rows: int
    """Images × views."""
    bytes: int
    """Size of the whole store on disk."""
    missing_rows: int
    """Rows that no earlier run has finished."""
    missing_bytes: int
    """What they will take."""
    free_bytes: int
    """Free space where the store will lie."""
    teacher: str
    targets: dict[str, tuple[int, int]]
    """Tokens and width of each target."""
    codec: str
    calibration_rows: int
    """Rows that the teacher computes before all others, to calibrate the codec and to judge it."""


def read_store_there(
    source: ImageSource, store: Path, recipe: ExtractRecipe, *, teacher: Teacher | None, device: str
) -> Manifest | None:
    """The manifest of the store that lies at the path already, if any; needs no weights.

    Raises:
        StoreMismatch: The store there is another one, as far as can be told without the teacher.
        OutputError: Something else lies there.
        ConfigError: There is no teacher of that name.
    """
    wanted = _known_facts(source, recipe, teacher, device)
    check_place(store)
    if not (store / FILE_NAME).exists():
        return None
    there = read_manifest(store)
    refuse_other_facts(store, facts_of(there), wanted)
    return there


def _known_facts(source: ImageSource, recipe: ExtractRecipe, teacher: Teacher | None, device: str) -> dict[str, Any]:
    """What is known of the wanted store before the teacher is loaded, in the words of `facts_of`."""
    if teacher is None:
        name, precision = parse_name(recipe.teacher).canonical, recipe.precision or default_precision(device)
    else:
        name, precision = teacher.description.name, teacher.description.precision
    targets = {recipe.target_name(tap): tap for tap in recipe.taps}
    codec = recipe.codec_for(len(source))
    return {
        "layout": recipe.layout,
        "images": len(source),
        "views": recipe.view_count,
        "first_view": recipe.first_view,
        "targets": ", ".join(sorted(targets)),
        "block_images": recipe.block_images,
        "teacher_batch": recipe.teacher_batch,
        "crops": recipe.crops,
        **flatten({"views": to_mapping(recipe.views)}),
        **{f"targets.{target}.tap": tap for target, tap in targets.items()},
        **{f"targets.{target}.codec": codec for target in targets},
        **{f"targets.{target}.teacher.name": name for target in targets},
        **{f"targets.{target}.teacher.precision": precision for target in targets},
        SOURCE_FACT: source.digest()[:12],
    }


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
            f"{recipe.views.size_px}. Choose another recipe, or --set views.size_px={described.image_px}, "
            f"or have its positions resized: --set teacher_px={recipe.views.size_px}."
        )
    teacher_mapping = to_mapping(described)
    widths = teacher_mapping.pop("widths")
    for tap in recipe.taps:
        choose(tap, widths, f"tap of {described.name}")
    codec = recipe.codec_for(len(source))
    targets = {
        recipe.target_name(tap): TargetSpec(
            teacher=teacher_mapping, tap=tap, tokens=described.tokens, width=widths[tap], codec=codec
        )
        for tap in recipe.taps
    }
    spec = StoreSpec(
        views=recipe.views,
        targets=targets,
        block_images=recipe.block_images,
        teacher_batch=recipe.teacher_batch,
        crops=recipe.crops,
    )
    return Manifest(
        spec=spec,
        layout=recipe.layout,
        images=len(source),
        views=recipe.view_count,
        first_view=recipe.first_view,
        source_digest=source.digest(),
        classes=source.classes,
        state="building",
    )


def plan(source: ImageSource, store: Path, recipe: ExtractRecipe, teacher: Teacher) -> ExtractPlan:
    """Rows, bytes and free disk, before anything is written."""
    manifest = plan_store(source, recipe, teacher)
    done = (store / FILE_NAME).exists()
    if done:
        manifest = with_tables(manifest, tables_of(read_manifest(store)))
    targets = manifest.spec.targets
    row_bytes = _VIEW_BYTES + _crop_bytes(recipe) + sum(target.row_bytes for target in targets.values())
    chosen = choose_images(source.keys, recipe.views.seed) if manifest.spec.uncalibrated else None
    missing = manifest.views * sum(
        len(manifest.images_of_block(block))
        for block in range(manifest.blocks)
        if not (done and is_done(store, manifest, block))
    )
    return ExtractPlan(
        images=manifest.images,
        views=manifest.views,
        rows=manifest.images * manifest.views,
        bytes=manifest.images * manifest.views * row_bytes,
        missing_rows=missing,
        missing_bytes=missing * row_bytes,
        free_bytes=free_bytes(store.absolute()),
        teacher=teacher.description.name,
        targets={name: (target.tokens, target.width) for name, target in targets.items()},
        codec=recipe.codec_for(len(source)),
        calibration_rows=0 if chosen is None else len(chosen.calibrate) + len(chosen.held_out),
    )


def _crop_bytes(recipe: ExtractRecipe) -> int:
    """Of a kept crop; a JPEG of quality 95 takes about a byte a pixel, more on noise and less on sky."""
    return {None: 0, "jpeg": 1, "raw": 3}[recipe.crops] * recipe.views.size_px**2


_VIEW_BYTES = 680  # parameters, thumbnail, checksums and index entry of a row


def say_plan(planned: ExtractPlan) -> str:
    """A plan in one sentence."""
    done = planned.rows - planned.missing_rows
    return (
        f"{planned.images:,} images × {planned.views} views = {planned.rows:,} rows of {planned.codec}, "
        + say_bytes(planned.bytes)
        + (f"; {planned.calibration_rows:,} rows calibrate the codec first" if planned.calibration_rows else "")
        + (f"; {done:,} rows are done, {say_bytes(planned.missing_bytes)} to write" if done else "")
        + f"; {say_bytes(planned.free_bytes)} are free"
    )


def refuse_too_large(planned: ExtractPlan) -> None:
    """Check that what is missing fits on the disk.

    Raises:
        OutputError: It does not.
    """
    if planned.missing_bytes > planned.free_bytes:
        raise OutputError(
            f"The store would take {say_bytes(planned.missing_bytes)}, and {say_bytes(planned.free_bytes)} are free. "
            "Make space, choose another disk, or take fewer views with --views."
        )
