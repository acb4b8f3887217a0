"""What an extraction will write and whether it can, decided before anything is spent on it.

Two rounds of refusals: what needs no teacher (the place, the store that lies there) comes before its weights are
loaded; what needs its identity and sizes comes after, and before anything is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from caev2.errors import ConfigError, OutputError
from caev2.extract.planning.sample import SAMPLE_IMAGES, Sample, choose_sample, draw_sample
from caev2.extract.planning.sizes import ImageSizes, index_bytes, store_sizes, table_files
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.shown import refuse_other_views
from caev2.extract.teachers.catalog import parse_name
from caev2.extract.teachers.teacher import Teacher, default_precision
from caev2.recipe import choose, to_mapping
from caev2.store.codecs.calibration import CALIBRATION_IMAGES, HELD_OUT_IMAGES
from caev2.store.codecs.codec import Tables
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
    """Size of the whole store on disk; its parts follow."""
    codes_bytes: int
    """Rows with their checksums."""
    crops_bytes: int
    views_bytes: int
    """Boxes, jitter, thumbnails, hashes and checksums; in tars the descriptions as well."""
    records_bytes: int
    """Records of units, index, tables of codecs, metadata."""
    row_files: int
    """Shards or tars."""
    files: int
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
    refuse_other_views(source, recipe)
    wanted = _known_facts(source, recipe, teacher, device)
    check_place(store)
    if not (store / FILE_NAME).exists():
        return None
    there = read_manifest(store)
    for name, target in there.spec.targets.items():
        if target.teacher.get("image_px") != recipe.views.size_px:
            wanted[f"targets.{name}.from_crops"] = recipe.from_crops or None  # left out where it is not so
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
        **{f"targets.{target}.teacher.image_px": recipe.teacher_px for target in targets if recipe.teacher_px},
        SOURCE_FACT: source.digest()[:12],
    }


def plan_store(source: ImageSource, recipe: ExtractRecipe, teacher: Teacher) -> Manifest:
    """The manifest of the store to be made.

    Raises:
        ConfigError: The teacher has no such tap, or the images are kept crops and the recipe asks for others.
    """
    described = teacher.description
    refuse_other_views(source, recipe, described.image_px)
    teacher_mapping = to_mapping(described)
    widths = teacher_mapping.pop("widths")
    for tap in recipe.taps:
        _choose_tap(tap, widths, described.name)
    codec = recipe.codec_for(len(source))
    targets = {
        recipe.target_name(tap): TargetSpec(
            teacher=teacher_mapping,
            tap=tap,
            tokens=described.tokens,
            width=widths[tap],
            codec=codec,
            from_crops=recipe.from_crops and described.image_px != recipe.views.size_px,
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


def _choose_tap(tap: str, widths: Mapping[str, int], name: str) -> None:
    """Refuse a tap that the teacher does not have; many have no `projected`, which is the default."""
    if tap == "projected" and tap not in widths:
        instead = "post_norm" if "post_norm" in widths else max(widths, key=_block_number)
        raise ConfigError(
            f"{name} has no projection for its patches, so no tap 'projected'. Take what it has: "
            f"--set 'taps=[\"{instead}\"]'."
        )
    choose(tap, widths, f"tap of {name}")


def _block_number(tap: str) -> int:
    return int(tap.partition(":")[2] or 0)


def plan(
    source: ImageSource,
    store: Path,
    recipe: ExtractRecipe,
    teacher: Teacher,
    *,
    sample: Sample | None = None,
    tables: Mapping[str, Tables] = MappingProxyType({}),
) -> ExtractPlan:
    """Rows, bytes and free disk, before anything is written.

    Args:
        source: All images.
        store: Where it will lie.
        recipe: Views, teacher and codec.
        teacher: The frozen model.
        sample: What the images are like; none: one is drawn if JPEGs of crops are to be kept, whose size nothing else
            tells.
        tables: As large as those that the codecs will learn, by target.
    """
    manifest = plan_store(source, recipe, teacher)
    done = (store / FILE_NAME).exists()
    if done:
        manifest = with_tables(manifest, tables_of(read_manifest(store)))
    if sample is None and recipe.crops == "jpeg":
        sample = draw_sample(source, replace(recipe, view_count=1), count=_CROPS)
    sizes = store_sizes(manifest, _image_sizes(source, recipe, sample, table_files(tables)))
    missing = manifest.views * sum(
        len(manifest.images_of_block(block))
        for block in range(manifest.blocks)
        if not (done and is_done(store, manifest, block))
    )
    rows = manifest.images * manifest.views
    return ExtractPlan(
        images=manifest.images,
        views=manifest.views,
        rows=rows,
        bytes=sizes.bytes,
        codes_bytes=sizes.codes_bytes,
        crops_bytes=sizes.crops_bytes,
        views_bytes=sizes.views_bytes,
        records_bytes=sizes.records_bytes,
        row_files=sizes.row_files,
        files=sizes.files,
        missing_rows=missing,
        missing_bytes=sizes.bytes * missing // rows,
        free_bytes=free_bytes(store.absolute()),
        teacher=teacher.description.name,
        targets={name: (target.tokens, target.width) for name, target in manifest.spec.targets.items()},
        codec=recipe.codec_for(len(source)),
        calibration_rows=min(len(source), CALIBRATION_IMAGES + HELD_OUT_IMAGES) if manifest.spec.uncalibrated else 0,
    )


_CROPS = 32
"""Images whose crops tell the size of all others, where nothing else is asked of a sample."""


def _image_sizes(
    source: ImageSource, recipe: ExtractRecipe, sample: Sample | None, tables: tuple[int, ...]
) -> ImageSizes:
    keys = [source.keys[number] for number in choose_sample(source.keys, SAMPLE_IMAGES)]
    raw = 3 * recipe.views.size_px**2
    crop = {None: 0.0, "raw": float(raw), "jpeg": sample.crop_bytes if sample else 0.0}[recipe.crops]
    return ImageSizes(
        crop_bytes=crop,
        key_bytes=sum(len(key.encode("utf-8", "surrogateescape")) for key in keys) / max(len(keys), 1),
        valid_share=1 - len(sample.failures) / len(sample.images) if sample else 1.0,
        index_bytes=index_bytes(source.listing(), [image.facts for image in sample.images] if sample else []),
        table_files=tables,
    )


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
