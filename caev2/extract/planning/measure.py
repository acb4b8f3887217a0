"""How fast the parts of an extraction are on this machine, each alone: teacher, codec, disk."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8
from torch import Tensor

from caev2.extract.latents import Batches, Forwarded, ImageLatents
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import Tables
from caev2.store.disk import flush_file, free_bytes

_MEASURED_S = 4.0  # with the first batch, which warms everything up, about five seconds
_BATCHES, _FEW_VIEWS = 20, 2
_ENCODED_S = 1.0
_FITTED_ROWS = 16
"""Rows that a codec learns from to be timed: how fast it encodes does not depend on what it has learned."""
_PIECE_BYTES, _WRITTEN_BYTES, _WRITTEN_S = 8 << 20, 256 << 20, 1.0


Runs = Callable[[int], Batches]


@dataclass(frozen=True, slots=True)
class TeacherRate:
    """What the teacher does."""

    rows_per_s: float
    views_at_once: int
    """Smaller than the batch where memory, or on a CPU time, was short."""
    latents: Mapping[str, Float16[np.ndarray, "view token width"]]
    """Of one batch, the padding left out, and what no codec could store."""


def measure_teacher(run: Runs, crops: Sequence[UInt8[Tensor, "size size 3"]], batch: int) -> TeacherRate:
    """Run the teacher on full batches, as an extraction does; the first one warms up and is not counted.

    On a machine where a batch takes longer than a measurement may, which only a CPU does, batches are smaller: there,
    a view costs about the same in any.

    Args:
        run: Makes what runs the teacher in batches of some size.
        crops: At least one; they are repeated as a batch needs.
        batch: Views in a batch.
    """
    first_s, first = _time_batches(run(few := min(_FEW_VIEWS, batch)), _repeat(crops, few), 1)
    if first.arrived is None:
        batch = min(batch, max(few, int(_MEASURED_S * few / first_s)))
    batches, full = run(batch), _repeat(crops, batch)
    _, warm = _time_batches(batches, full, 1)
    one_s, _ = _time_batches(batches, full, 1)
    count = min(_BATCHES, int(_MEASURED_S / one_s) - 1)
    seconds, _ = _time_batches(batches, full, count) if count > 1 else (one_s, None)
    storable = warm.storable.numpy()[: len(crops)]
    latents = ImageLatents(((warm, slice(0, len(storable))),)).read()
    return TeacherRate(
        rows_per_s=batch * max(count, 1) / seconds,
        views_at_once=warm.views_at_once,
        latents={tap: rows[storable] for tap, rows in latents.items()},
    )


def _repeat(crops: Sequence[UInt8[Tensor, "size size 3"]], count: int) -> list[Tensor]:
    return [crops[place % len(crops)] for place in range(count)]


def _time_batches(
    batches: Batches, crops: Sequence[UInt8[Tensor, "size size 3"]], count: int
) -> tuple[float, Forwarded]:
    """Seconds of some batches, handed over one after another as the device takes them; and the last of them."""
    begun = time.perf_counter()
    for _ in range(count):
        last = batches.forward(crops)
    last.wait()
    return time.perf_counter() - begun, last


@dataclass(frozen=True, slots=True)
class CodecRate:
    """What encoding costs."""

    cpu_s_per_row: float
    """Of one core, all targets together; 0 if there was no row to encode."""
    name: str
    tables: Mapping[str, Tables]
    """By tap: as large as those that it will learn; empty ones of a codec that learns nothing."""

    @property
    def learned(self) -> dict[str, Tables]:
        """Those that will lie on disk."""
        return dict(self.tables) if codec_named(self.name).learns else {}


def measure_codec(codec: str, latents: Mapping[str, Float16[np.ndarray, "view token width"]]) -> CodecRate:
    """Encode some rows of every tap, again and again for about a second.

    Args:
        codec: Its name.
        latents: By tap.
    """
    encoder, spent, tables = codec_named(codec), 0.0, {}
    for tap, rows in latents.items():
        if not len(rows):
            return CodecRate(0.0, codec, {})
        tables[tap] = encoder.fit(rows[:_FITTED_ROWS])
        encoder.encode(rows[:1], tables[tap])  # what is made once is made here
        encoded, begun, until = 0, time.process_time(), time.perf_counter() + _ENCODED_S / len(latents)
        while not encoded or time.perf_counter() < until:
            encoder.encode(rows, tables[tap]).stored()
            encoded += len(rows)
        spent += (time.process_time() - begun) / encoded
    return CodecRate(spent, codec, tables)


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
