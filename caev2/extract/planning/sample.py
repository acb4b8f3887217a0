"""A few images of a source, prepared as an extraction prepares them: what the others are like."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from caev2.errors import ImageUndecodable
from caev2.extract.prepare import Preparation, PreparedImage
from caev2.extract.recipes import ExtractRecipe
from caev2.progress import Progress, Silent
from caev2.store.draws import stream_key
from caev2.store.images import ImageSource

SAMPLE_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some images with their views."""

    source: ImageSource
    """They alone."""
    images: tuple[PreparedImage, ...]
    read_s: float
    """Time to read all of them, which is other for files that the system remembers."""
    prepare_cpu_s: float
    """Time of one core to decode them, to render their views and to encode the crops that are kept."""

    @cached_property
    def decoded(self) -> tuple[PreparedImage, ...]:
        """Those that can be used."""
        return tuple(image for image in self.images if image.facts.reason is None)

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """Key and reason of the others."""
        facts = ((self.source.keys[image.number], image.facts.reason) for image in self.images)
        return tuple((key, reason) for key, reason in facts if reason is not None)

    @property
    def views(self) -> int:
        """Rendered views of all of them."""
        return sum(len(image.crops) for image in self.decoded)

    @property
    def crop_bytes(self) -> float:
        """Mean size of a crop as it is kept; 0 where it is not, or where there is none."""
        return sum(len(kept) for image in self.decoded for kept in image.kept) / max(self.views, 1)


@dataclass(frozen=True, slots=True)
class _Held:
    """Gives images whose bytes are in memory, or what their source said instead."""

    data: tuple[bytes | ImageUndecodable, ...]

    def read(self, index: int) -> bytes:
        if isinstance(found := self.data[index], ImageUndecodable):
            raise found
        return found


def _read(source: ImageSource, number: int) -> bytes | ImageUndecodable:
    try:
        return source.read(number)
    except ImageUndecodable as problem:  # a pipe, or a link to nothing
        return problem


def choose_sample(keys: Sequence[str], count: int) -> list[int]:
    """Numbers of images spread over a source: one of each of `count` equal stretches, which one its first key says."""
    count = min(count, len(keys))
    bounds = [place * len(keys) // count for place in range(count + 1)] if count else []
    return [first + stream_key("sample", keys[first]) % (end - first) for first, end in itertools.pairwise(bounds)]


def draw_sample(
    source: ImageSource,
    recipe: ExtractRecipe,
    *,
    count: int = SAMPLE_IMAGES,
    teacher_px: int | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Read and prepare some images in this process, timed.

    Args:
        source: All images.
        recipe: Which views of each, and whether crops are kept.
        count: How many images at most.
        teacher_px: Side of the crops that the teacher takes; none: that of the views.
        progress: Who is told.

    Raises:
        SourceError: One cannot be read.
    """
    progress = progress or Silent()
    # of what can only be read from its beginning, the beginning
    numbers = choose_sample(source.keys, count) if source.seekable else range(min(count, len(source)))
    chosen = source.take(numbers)
    begun = time.perf_counter()
    held = replace(chosen, reader=_Held(tuple(_read(chosen, number) for number in range(len(chosen)))))
    read_s = time.perf_counter() - begun
    views = range(recipe.first_view, recipe.first_view + recipe.view_count)
    preparation = Preparation(held, recipe.views, views, recipe.crops, teacher_px, recipe.from_crops)
    images, begun = [], time.process_time()
    progress.start("sample", len(held))
    for number in range(len(held)):
        images.append(preparation.prepare(number))
        progress.advance(1)
    progress.finish()
    return Sample(source=held, images=tuple(images), read_s=read_s, prepare_cpu_s=time.process_time() - begun)
