"""What `caev2 pretrain --dry-run` finds out, in words and as numbers."""

import dataclasses
from typing import TYPE_CHECKING, Any

from caev2.commands.planning import say_hours

if TYPE_CHECKING:
    from caev2.pretrain.foresight.forecast import Forecast


def as_numbers(found: "Forecast") -> dict[str, Any]:
    """Every figure under a name that has its unit; what is not known is null."""
    hours, timed = found.hours(), found.rehearsal
    return {
        **dataclasses.asdict(found.plan),
        "batch_size": found.batch_size,
        "devices": found.devices,
        "images_at_once": found.images_at_once,
        "gmac_per_image": found.cost.total / 1e9,
        **{f"gmac_per_image_{part}": count / 1e9 for part, count in dataclasses.asdict(found.cost).items()},
        "flops_per_image_and_step": found.cost.flops_per_step,
        "flops_per_step": found.cost.flops_per_step * found.batch_size,
        "device": found.device,
        "precision": found.precision,
        "peak_flops": found.peak_flops,
        "memory_bytes_estimated": found.memory_bytes,
        "memory_bytes_of_model": found.memory.model_bytes,
        "memory_bytes_per_image": found.memory.activation_bytes_per_image,
        "memory_bytes_free": found.free_memory_bytes,
        "checkpoint_bytes": found.checkpoint_bytes,
        "disk_bytes": found.disk_bytes,
        "disk_bytes_free": found.free_disk_bytes,
        "measured_images": timed.images if timed else 0,
        "measured_steps": len(timed.seconds) if timed else 0,
        "measured_batch_size": timed.batch_size if timed else 0,
        "images_per_s": timed.images_per_s if timed else None,
        "images_per_s_slowest": timed.images_per_s_range[0] if timed else None,
        "images_per_s_quickest": timed.images_per_s_range[1] if timed else None,
        "mfu_percent": found.mfu_percent,
        "hours": hours[1] if hours else None,
        "hours_least": hours[0] if hours else None,
        "hours_most": hours[2] if hours else None,
    }


def as_words(found: "Forecast") -> dict[str, str]:
    """The same for people."""
    from caev2.store.disk import say_bytes

    plan, cost, memory = found.plan, found.cost, found.memory
    each = " on each" if found.devices > 1 else ""
    parts = ", ".join(f"{part} {count / 1e9:.3g}" for part, count in dataclasses.asdict(cost).items() if count)
    return {
        "images": f"{plan.images:,}, {plan.views} view{'s' * (plan.views > 1)} of each",
        "steps": f"{plan.steps:,}: {plan.epochs} epochs of {plan.steps_per_epoch:,} batches of {found.batch_size:,}",
        "goes on at": f"step {plan.resume_step:,}" if plan.resume_step else "the beginning",
        "parameters": f"{plan.parameters:,}",
        "forward pass": f"{cost.total / 1e9:.3g} GMAC an image: {parts}",
        "step": f"{cost.flops_per_step / 1e9:,.4g} GFLOP an image, "
        f"{cost.flops_per_step * found.batch_size / 1e12:,.4g} TFLOP a batch",
        "memory": f"about {say_bytes(found.memory_bytes)} for {found.images_at_once:,} images at once{each} in "
        f"{found.precision}: model and optimiser {say_bytes(memory.model_bytes)}, "
        f"{say_bytes(memory.activation_bytes_per_image)} an image",
        "free memory": f"{say_bytes(found.free_memory_bytes)} on {found.device}",
        "checkpoints": f"{say_bytes(found.checkpoint_bytes)} each, {say_bytes(found.disk_bytes)} at most",
        "free disk": say_bytes(found.free_disk_bytes),
        "speed": _say_speed(found),
        "time": _say_time(found),
    }


def _say_speed(found: "Forecast") -> str:
    from caev2.pretrain.foresight.forecast import FEW_STEPS

    timed = found.rehearsal
    if timed is None:
        return "not measured: there is no memory for a single image"
    slowest, quickest = timed.images_per_s_range
    rate = f"{slowest:,.4g} to {quickest:,.4g}" if found.is_noisy else f"{timed.images_per_s:,.4g}"
    few = "" if len(timed.seconds) >= FEW_STEPS else ", too few to tell how much they vary"
    used = "" if found.mfu_percent is None else f", MFU {found.mfu_percent:.0f} %"
    return (
        f"{rate} images/s{used}, measured on {_count(timed.images, 'image')}, made up: "
        f"{_count(len(timed.seconds), 'step')} of {timed.batch_size:,}{few}; not compiled, without reading and cropping"
    )


def _say_devices(number: int) -> str:
    return "one such device" if number == 1 else f"{number} such devices that lose nothing by sharing"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _say_time(found: "Forecast") -> str:
    hours = found.hours()
    if hours is None:
        return "not known"
    least, median, most = hours
    said = f"{say_hours(least)} to {say_hours(most)}" if found.is_noisy else say_hours(median)
    return f"{said} for {found.steps_left:,} steps on {_say_devices(found.devices)}, if all of them go at that speed"
