"""How fast the parts of an extraction are on this machine, each alone: teacher, codec, disk."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from caev2.extract.latents import Batches, Latents
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import Tables
from caev2.store.disk import flush_file, free_bytes

_MEASURED_S = 4.0  # with the first batch, which warms everything up, about five seconds
_BATCHES = 20
_ENCODED_S = 1.0
_FITTED_ROWS = 16
"""Rows that a codec learns from to be timed: how fast it encodes does not depend on what it has learned."""
_PIECE_BYTES, _WRITTEN_BYTES, _WRITTEN_S = 8 << 20, 256 << 20, 1.0


@dataclass(frozen=True, slots=True)
class TeacherRate:
    """What the teacher does."""

    rows_per_s: float
    latents: Latents
    """Of one batch, the padding left out, and what no codec could store."""


def measure_teacher(batches: Batches, crops: Sequence[UInt8[Tensor, "size size 3"]], batch: int) -> TeacherRate:
    """Run the teacher on full batches, as an extraction does.

    The first batch warms up and is not counted; only on a machine where it alone takes longer than a measurement may
    is it the measurement.

    Args:
        batches: Runs the teacher.
        crops: At least one; they are repeated as a batch needs.
        batch: Views in a batch.
    """
    full = [crops[place % len(crops)] for place in range(batch)]
    begun = time.perf_counter()
    first = batches.forward(full)
    first.wait()
    warm_s = time.perf_counter() - begun
    storable = first.storable.numpy()[: len(crops)]
    latents = {tap: rows.numpy()[: len(crops)][storable] for tap, rows in first.latents.items()}
    if warm_s > _MEASURED_S and first.arrived is None:  # a CPU needs little warming
        return TeacherRate(batch / warm_s, latents)
    one_s = _time_batches(batches, full, 1)
    count = min(_BATCHES, max(1, int(_MEASURED_S / one_s)))
    return TeacherRate(batch * count / _time_batches(batches, full, count), latents)


def _time_batches(batches: Batches, crops: Sequence[UInt8[Tensor, "size size 3"]], count: int) -> float:
    """Seconds of some batches, handed over one after another as the device takes them."""
    begun = time.perf_counter()
    for _ in range(count):
        last = batches.forward(crops)
    last.wait()
    return time.perf_counter() - begun


@dataclass(frozen=True, slots=True)
class CodecRate:
    """What encoding costs."""

    cpu_s_per_row: float
    """Of one core, all targets together; 0 if there was no row to encode."""
    tables: Mapping[str, Tables]
    """By tap, of a codec that learns: as large as those that it will learn."""


def measure_codec(codec: str, latents: Latents) -> CodecRate:
    """Encode some rows of every tap, again and again for about a second.

    Args:
        codec: Its name.
        latents: By tap.
    """
    encoder, spent, tables = codec_named(codec), 0.0, {}
    for tap, rows in latents.items():
        if not len(rows):
            return CodecRate(0.0, {})
        learned = encoder.fit(rows[:_FITTED_ROWS])
        encoder.encode(rows[:1], learned)  # what is made once is made here
        encoded, begun, until = 0, time.process_time(), time.perf_counter() + _ENCODED_S / len(latents)
        while not encoded or time.perf_counter() < until:
            encoder.encode(rows, learned).stored()
            encoded += len(rows)
        spent += (time.process_time() - begun) / encoded
        if encoder.learns:
            tables[tap] = learned
    return CodecRate(spent, tables)


def measure_writing(place: Path) -> float | None:
    """Bytes a second that one writer brings to the disk that a path will lie on; none if it cannot be written.

    What is written has no name and is gone with this process, however that ends.
    """
    folder = place.absolute()
    while not folder.exists():
        folder = folder.parent
    data, most = np.random.default_rng(0).bytes(_PIECE_BYTES), min(_WRITTEN_BYTES, free_bytes(folder) // 10)
    if most < _PIECE_BYTES:
        return None
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return _write(file.fileno(), data, most)
    except OSError:  # no place for a file; the extraction itself says what is wrong with it
        return None


def _write(descriptor: int, data: bytes, most: int) -> float:
    begun, written = time.perf_counter(), 0
    while written < most and time.perf_counter() - begun < _WRITTEN_S:
        written += os.write(descriptor, data)
    flush_file(descriptor)
    return written / (time.perf_counter() - begun)
