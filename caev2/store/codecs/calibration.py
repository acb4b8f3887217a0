"""Which images calibrate a codec, and which judge it: a pure function of seed and keys.

Images are ranked by blake2b over the length-prefixed seed and key. The first ones calibrate, the next ones are held
out. A source may be read in parts or by many workers: they all agree, and neither the order of the source nor its
folders matter.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from caev2.errors import StoreError
from caev2.store.codecs.codec import Codec, Tables, decode
from caev2.store.codecs.quality import Quality, QualityFloor, QualityMeter, mean_latents
from caev2.store.draws import stream_key

CALIBRATION_IMAGES = 2048
HELD_OUT_IMAGES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationImages:
    """Numbers of images in a source, each list ascending; no image is in both."""

    calibrate: tuple[int, ...]
    """Whose rows the codec is fitted to."""
    held_out: tuple[int, ...]
    """Whose rows the codec's quality is measured on; empty only if the source has a single image."""


def choose_images(
    keys: Sequence[str], seed: int, *, calibrate: int = CALIBRATION_IMAGES, held_out: int = HELD_OUT_IMAGES
) -> CalibrationImages:
    """Choose by rank; of a source too small for both, four in five calibrate.

    Args:
        keys: Of all images of the whole source, also of those that other workers or parts extract.
        seed: Of the views.
        calibrate: How many calibrate.
        held_out: How many are held out.
    """
    ranked = heapq.nsmallest(calibrate + held_out, range(len(keys)), key=lambda image: _rank(keys[image], image, seed))
    count = calibrate if len(ranked) == calibrate + held_out else min(calibrate, max(1, len(ranked) * 4 // 5))
    return CalibrationImages(
        calibrate=tuple(sorted(ranked[:count])), held_out=tuple(sorted(ranked[count : count + held_out]))
    )


def fit_codec(
    codec: Codec,
    rows: Float[np.ndarray, "row token width"],
    held_out: Float[np.ndarray, "held_out _ _"],
) -> tuple[dict[str, np.ndarray], Quality | None]:
    """Tables from some rows, and how faithful they are to others."""
    tables = codec.fit(rows)
    return tables, measure(codec, tables, held_out)


def measure(codec: Codec, tables: Tables, rows: Float[np.ndarray, "row token width"]) -> Quality | None:
    """How faithful a codec is to rows that did not calibrate it, about their own mean; none if there are no rows."""
    meter = QualityMeter(mean_latents([rows]))
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        meter.add(some, decode(codec, codec.encode(some, tables), tables))
    return meter.quality()


_ROWS_AT_ONCE = 16


def refuse_unfaithful(what: str, floor: QualityFloor, quality: Quality | None) -> None:
    """Check that a codec is faithful enough.

    Raises:
        StoreError: A figure misses its limit; the message names each.
    """
    missed = () if quality is None else floor.shortfalls(quality)
    if missed:
        raise StoreError(
            f"{what} is not faithful enough on images that did not calibrate it: {'; '.join(map(str, missed))}. "
            "Take a codec that keeps more (--codec int8, or float16), calibrate on more images (--calibration STORE), "
            f"or, knowing this, move the limit: --set floor.{missed[0].figure}=..."
        )


def _rank(key: str, image: int, seed: int) -> tuple[int, int]:
    return stream_key(seed, key), image
