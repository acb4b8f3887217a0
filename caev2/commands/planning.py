"""What `caev2 extract --dry-run` finds out, in words and as numbers."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caev2.commands.invocation import list_failures, print_result

if TYPE_CHECKING:
    from caev2.extract.planning.estimate import Estimate
    from caev2.extract.recipes import ExtractRecipe
    from caev2.progress import Progress
    from caev2.store.images import ImageSource

DEVICES = (1, 4, 8)
"""How many devices hours are told for."""


def print_plan(
    source: "ImageSource", store: Path, recipe: "ExtractRecipe", device: str, as_json: bool, progress: "Progress"
) -> None:
    """Print what an extraction would take; nothing is written.

    Raises:
        Caev2Error: What the extraction itself would refuse before it begins.
    """
    from caev2.extract.planning.estimate import estimate
    from caev2.extract.planning.plan import read_store_there
    from caev2.extract.teachers.catalog import load_teacher

    read_store_there(source, store, recipe, teacher=None, device=device)
    teacher = load_teacher(recipe.teacher, device=device, precision=recipe.precision, image_px=recipe.teacher_px)
    found = estimate(source, store, recipe, teacher, device=device, progress=progress)
    if found.undecodable_share > recipe.max_failed:
        progress.warn(
            f"{len(found.undecodable)} of {found.sample_images} images of the sample cannot be used, more than the "
            f"allowed share of {recipe.max_failed:g}: the extraction would stop. Allow more with --set max_failed=0.5."
        )
    print_result(as_numbers(found) if as_json else as_words(found), as_json, f"{store} would hold")


def as_numbers(found: "Estimate") -> dict[str, Any]:
    """Every figure under a name that has its unit."""
    facts = dataclasses.asdict(found)
    planned, rates = facts.pop("plan"), facts.pop("rates")
    del rates["on_gpu"], rates["disk_rows_per_s"]  # told by the device, and by bytes a second
    hours = {f"hours_{count}_device{'s' * (count > 1)}": found.hours(count) for count in DEVICES}
    return {
        **planned,
        **facts,
        **rates,
        "cores_needed": found.rates.cores_needed,
        "rows_per_s": found.rates.rows_per_s,
        "write_bytes_per_s_needed": found.write_bytes_per_s_needed,
        "limit": found.rates.limit,
        "hours": found.hours(),
        **hours,
    }


def as_words(found: "Estimate") -> dict[str, str]:
    """The same for people."""
    from caev2.store.disk import say_bytes

    planned, rates = found.plan, found.rates
    words = {
        "rows": f"{planned.rows:,}: {planned.images:,} images x {planned.views} views, {planned.codec}",
        "targets": ", ".join(f"{name}: {tokens} x {width}" for name, (tokens, width) in planned.targets.items()),
        "teacher": planned.teacher,
        "bytes": say_bytes(planned.bytes),
        "  codes": say_bytes(planned.codes_bytes),
        "  crops": say_bytes(planned.crops_bytes),
        "  views": say_bytes(planned.views_bytes),
        "  records, index": say_bytes(planned.records_bytes),
        "files": f"{planned.files:,}, of which {planned.row_files:,} hold rows",
        "to write": f"{say_bytes(planned.missing_bytes)}, {planned.missing_rows:,} rows",
        "free disk": say_bytes(planned.free_bytes),
        "calibration": f"{planned.calibration_rows:,} rows" if planned.calibration_rows else "none",
        "sample": f"{found.sample_images} images of {say_bytes(round(found.image_bytes))} "
        f"and {found.image_pixels:,.0f} pixels on average",
        "undecodable": _say_undecodable(found),
        "reading": f"{found.read_images_per_s:,.0f} images/s",
        "decoding": f"{found.decode_rows_per_s_per_core:,.1f} rows/s a core",
        "encoding": _say_encoding(found),
        "writing": _say_writing(found),
        "teacher alone": f"{rates.teacher_rows_per_s:,.1f} rows/s on {found.device}, "
        f"{found.views_at_once} views at once",
        "limit": _say_limit(found),
        "time here": f"{say_hours(found.hours())}, at {rates.rows_per_s:,.1f} rows/s",
    }
    for count in DEVICES:
        devices = "1 such device" if count == 1 else f"{count} such devices"
        words[devices] = say_hours(found.hours(count))
    if not rates.on_gpu:
        words["on a GPU"] = "not measured: none was used. docs/scale.md has the arithmetic"
    return words


def _say_undecodable(found: "Estimate") -> str:
    if not found.undecodable:
        return "none of the sample"
    return f"{100 * found.undecodable_share:.1f} % of the sample: {list_failures(found.undecodable)}"


def _say_encoding(found: "Estimate") -> str:
    if found.encoded_on_device:
        return f"on {found.device}, with the teacher"
    if found.encode_rows_per_s_per_core is None:
        return "not measured: no row of the sample can be stored"
    return f"{found.encode_rows_per_s_per_core:,.1f} rows/s a core"


def _say_writing(found: "Estimate") -> str:
    from caev2.store.disk import say_bytes

    needed = f"{say_bytes(round(found.write_bytes_per_s_needed))}/s are needed"
    if found.write_bytes_per_s is None:
        return f"not measured: the disk cannot be written; {needed}"
    return f"{say_bytes(round(found.write_bytes_per_s))}/s by one writer; {needed}"


def _say_limit(found: "Estimate") -> str:
    rates = found.rates
    needed = f"{rates.cores_needed:,} core{'s' * (rates.cores_needed != 1)} for decoding"
    if rates.on_gpu:
        return f"{rates.limit}; {needed} and one more keep the device from waiting; here are {rates.cores}"
    return f"{rates.limit}; a device of this rate needs {needed}; here all share {rates.cores}"


def say_hours(hours: float) -> str:
    """A time in seconds, minutes, hours or days."""
    if hours < 1:
        return f"{3600 * hours:.1f} seconds" if hours < 1 / 60 else f"{60 * hours:.1f} minutes"
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours:,.0f} hours ({hours / 24:,.1f} days)"
