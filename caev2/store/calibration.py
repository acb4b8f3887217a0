"""Which images calibrate a codec, and which judge it: a pure function of seed and keys.

Images are ranked by blake2b over the length-prefixed seed and key. The first ones calibrate, the next ones are held
out. A source may be read in parts or by many workers: they all agree, and neither the order of the source nor its
folders matter.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

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


def _rank(key: str, image: int, seed: int) -> tuple[int, int]:
    return stream_key(seed, key), image
