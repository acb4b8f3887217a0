"""How long an extraction will take and what limits it, from a sample of its images and a few batches of its teacher.

Rates of host work are those of one core, in processor time, so that a busy machine does not spoil them; the teacher
and the disk are timed by the clock.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from caev2.errors import SourceError
from caev2.extract.encode import Encode, encoder_for
from caev2.extract.latents import Batches
from caev2.extract.planning.measure import CodecRate, TeacherRate, measure_codec, measure_teacher, measure_writing
from caev2.extract.planning.plan import ExtractPlan, plan, plan_store, refuse_too_large
from caev2.extract.planning.sample import Sample, draw_sample
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.shown import tell_sizes
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress, Silent
from caev2.store.images import ImageSource

Limit = Literal["teacher", "decode", "disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast each part is alone."""

    teacher_rows_per_s: float
    """Of the device that was measured."""
    host_s_per_row: float
    """Of one core: reading, decoding, rendering, encoding."""
    disk_rows_per_s: float
    """Of one writer; infinite where it could not be measured."""
    cores: int
    """Of this machine that may be used."""
    on_gpu: bool
    """Otherwise the teacher needs the very cores that decode."""

    @property
    def cores_needed(self) -> int:
        """Cores that keep the device from waiting, besides those that it computes on."""
        return math.ceil(self.teacher_rows_per_s * self.host_s_per_row)

    @property
    def decode_rows_per_s(self) -> float:
        """Of the cores of this machine; where there is a GPU, one of them feeds it."""
        return max(1, self.cores - self.on_gpu) / self.host_s_per_row

    @property
    def rows_per_s(self) -> float:
        """Of all together, on this machine."""
        return min(self._computed_rows_per_s, self.disk_rows_per_s)

    @property
    def _computed_rows_per_s(self) -> float:
        if self.on_gpu:
            return min(self.teacher_rows_per_s, self.decode_rows_per_s)
        return 1 / (1 / self.teacher_rows_per_s + 1 / self.decode_rows_per_s)

    def rows_per_s_of(self, devices: int) -> float:
        """Of several such devices, each with the cores that it needs, that write to one disk."""
        return min(self.computed_rows_per_s_of(devices), self.disk_rows_per_s)

    def computed_rows_per_s_of(self, devices: int) -> float:
        """The same, if the disk took whatever comes."""
        return devices * (self.teacher_rows_per_s if self.on_gpu else self._computed_rows_per_s)

    @property
    def limit(self) -> Limit:
        """What is slowest."""
        if self.disk_rows_per_s < self._computed_rows_per_s:
            return "disk"
        return "teacher" if self.teacher_rows_per_s <= self.decode_rows_per_s else "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What was found out about an extraction that has not begun."""

    plan: ExtractPlan
    device: str
    views_at_once: int
    """In the batches that the teacher was timed with; fewer than the recipe's on a slow CPU, or for want of memory."""
    sample_images: int
    image_bytes: float
    """Mean of the sample."""
    image_pixels: float
    """Mean of those that can be decoded."""
    undecodable_share: float
    undecodable: tuple[tuple[str, str], ...]
    """Key and reason of each in the sample."""
    read_images_per_s: float
    decode_rows_per_s_per_core: float
    """Decoding, rendering and, where crops are kept, encoding them."""
    encoded_on_device: bool
    """Whether the device encodes what it computes, which is then part of its rate."""
    encode_rows_per_s_per_core: float | None
    """Of the codec; none: the device encodes, or the teacher gave no row that can be stored."""
    write_bytes_per_s: float | None
    """Of one writer; none: the disk could not be written to, or is all but full."""
    rates: Rates

    @property
    def write_bytes_per_s_needed(self) -> float:
        """So that one device, with all the cores it needs, does not wait for the disk."""
        return self.rates.computed_rows_per_s_of(1) * self.plan.bytes / self.plan.rows

    def hours(self, devices: int | None = None) -> float:
        """Of what is missing, on this machine; or on so many such devices with all the cores they need."""
        rows = self.plan.missing_rows + self.plan.calibration_rows
        rate = self.rates.rows_per_s if devices is None else self.rates.rows_per_s_of(devices)
        return rows / rate / 3600


def estimate(
    source: ImageSource,
    store: Path,
    recipe: ExtractRecipe,
    teacher: Teacher,
    *,
    device: str,
    progress: Progress | None = None,
) -> Estimate:
    """Look at a sample of the images and time every part of the work on it; nothing is written.

    Args:
        source: All images.
        store: Where the store will lie.
        recipe: Views, teacher and codec.
        teacher: The frozen model, on the device.
        device: Where it runs.
        progress: Who is told.

    Raises:
        SourceError: An image cannot be read, or not one of the sample can be used.
        OutputError: The store would not fit.
        TeacherError: The teacher takes other crops, or the device has not even memory for one view.
    """
    progress = progress or Silent()
    plan_store(source, recipe, teacher)  # refuses what no sample is needed for
    tell_sizes(recipe, teacher.description, progress)
    sample = draw_sample(source, recipe, teacher_px=teacher.description.image_px, progress=progress)
    refuse_too_large(plan(source, store, recipe, teacher, sample=sample))
    if not sample.decoded:
        key, reason = sample.failures[0]
        raise SourceError(
            f"None of {len(sample.images)} images of {source.root} that were tried can be used. The first: {key}: "
            f"{reason}. Repair or remove them."
        )
    crops = [crop for image in sample.decoded for crop in image.crops]
    progress.say(f"extract: timing {teacher.description.name} on {device}")
    taught = measure_teacher(
        lambda batch: Batches(teacher, recipe.taps, batch, device, progress), crops, recipe.teacher_batch
    )
    codec = measure_codec(recipe.codec_for(len(source)), taught.latents)
    on_device = _encoders_on_device(codec, teacher.description.tokens, torch.device(device))
    if on_device:  # what was timed so far was the teacher alone
        taught = measure_teacher(
            lambda batch: Batches(teacher, recipe.taps, batch, device, progress, on_device), crops, recipe.teacher_batch
        )
    planned = plan(source, store, recipe, teacher, sample=sample, tables=codec.learned)
    return _conclude(planned, device, sample, taught, None if on_device else codec, measure_writing(store))


def _encoders_on_device(codec: CodecRate, tokens: int, device: torch.device) -> dict[str, Encode]:
    """What a GPU encodes itself, by tap; a codec that it has no encoder for is left to the cores."""
    if device.type != "cuda":
        return {}
    found = {tap: encoder_for(codec.name, tables, tokens, device) for tap, tables in codec.tables.items()}
    return {tap: encode for tap, encode in found.items() if encode is not None}


def _conclude(
    planned: ExtractPlan, device: str, sample: Sample, taught: TeacherRate, codec: CodecRate | None, disk: float | None
) -> Estimate:
    prepare_s, encode_s = sample.prepare_cpu_s / sample.views, codec.cpu_s_per_row if codec else 0.0
    rates = Rates(
        teacher_rows_per_s=taught.rows_per_s,
        host_s_per_row=sample.read_s / sample.views + prepare_s + encode_s,
        disk_rows_per_s=math.inf if disk is None else disk * planned.rows / planned.bytes,
        cores=len(os.sched_getaffinity(0)),
        on_gpu=torch.device(device).type == "cuda",
    )
    return Estimate(
        plan=planned,
        device=device,
        views_at_once=taught.views_at_once,
        sample_images=len(sample.images),
        image_bytes=_mean([image.facts.bytes for image in sample.images]),
        image_pixels=_mean([image.facts.height * image.facts.width for image in sample.decoded]),
        undecodable_share=len(sample.failures) / len(sample.images),
        undecodable=sample.failures,
        read_images_per_s=len(sample.images) / sample.read_s,
        decode_rows_per_s_per_core=1 / prepare_s,
        encoded_on_device=codec is None,
        encode_rows_per_s_per_core=1 / encode_s if encode_s else None,
        write_bytes_per_s=disk,
        rates=rates,
    )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
