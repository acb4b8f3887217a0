"""Computing units on one device: the loop that every engine runs.

Four things happen at once: processes decode and crop, the device computes, threads encode, and one thread writes.
Whoever is fast waits for the others, so what is in flight stays small.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from caev2.extract.background import Background
from caev2.extract.crop_pool import prepare_in_order
from caev2.extract.encode import Encode, encoder_for
from caev2.extract.latents import Batches, ImageLatents, latents_of_unit
from caev2.extract.prepare import Preparation, PreparedImage
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress
from caev2.store.codecs.catalog import codec_named
from caev2.store.images import ImageSource
from caev2.store.records import ImageFacts
from caev2.store.unit_writer import StoredView
from caev2.store.writer import StoreWriter


@dataclass(frozen=True, slots=True)
class ImageDone:
    """What is told of each image that is through."""

    key: str
    block: int
    views: int
    computed: int
    """Views that the teacher computed: none of an image that cannot be used, or of another writer's."""
    reason: str | None
    """Why it has no row."""


Told = Callable[[ImageDone], None]
"""Who is told, in any thread: of images in their order, and of blocks that another writer has done."""


@dataclass(frozen=True, slots=True)
class UnitComputer:
    """Computes units of a store on one device."""

    writer: StoreWriter
    source: ImageSource
    recipe: ExtractRecipe
    teacher: Teacher
    device: str
    workers: int
    """Processes that decode and crop; 0: this one does."""
    told: Told
    progress: Progress
    """Who is warned of a device without memory."""

    def compute(self, blocks: Iterable[int]) -> None:
        """Compute the units of some blocks; one that another writer finishes first is passed over.

        Args:
            blocks: Asked for one after another, as the work comes to them.

        Raises:
            SourceError: A file cannot be read.
            TeacherError: The device has too little memory.
            OutputError: The store cannot be written.
            WorkerDied: A worker process was killed.
        """
        writer, recipe = self.writer, self.recipe
        on_device = self._encoders_on_device()
        batches = Batches(self.teacher, recipe.taps, recipe.teacher_batch, self.device, self.progress, on_device)
        views = range(writer.manifest.first_view, writer.manifest.first_view + writer.manifest.views)
        teacher_px = self.teacher.description.image_px
        preparation = Preparation(self.source, recipe.views, views, recipe.crops, teacher_px, recipe.from_crops)
        prepared = prepare_in_order(preparation, self._images_of(blocks), self.workers)
        with (
            ThreadPoolExecutor(_encoders(), thread_name_prefix="encode") as encoders,
            Background(self._write, ahead=_IMAGES_BEHIND) as writing,
        ):
            for block, images in itertools.groupby(prepared, partial(_block_of, writer)):
                if writer.is_done(block):  # by another writer, while its first images were prepared
                    self._tell_of_others(block)
                    continue
                for image, latents in latents_of_unit(images, batches, recipe.teacher_batch):
                    writing.put(_Encoding(block, encoders.submit(self._encode, image, latents, on_device)))
            writing.finish()

    def _images_of(self, blocks: Iterable[int]) -> Iterator[int]:
        """The images to prepare; of a unit that another writer has finished when its turn comes, none."""
        for block in blocks:
            if self.writer.is_done(block):
                self._tell_of_others(block)
            else:
                yield from self.writer.manifest.images_of_block(block)

    def _tell_of_others(self, block: int) -> None:
        for number in self.writer.manifest.images_of_block(block):
            self.told(ImageDone(self.source.keys[number], block, self.writer.manifest.views, 0, None))

    def _encoders_on_device(self) -> dict[str, Encode]:
        """Encoders of those taps that a GPU encodes itself."""
        device, found = torch.device(self.device), {}
        for tap in self.recipe.taps if device.type == "cuda" else ():
            name = self.recipe.target_name(tap)
            target = self.writer.manifest.spec.targets[name]
            encoder = encoder_for(target.codec, self.writer.tables(name), target.tokens, device)
            if encoder is not None:
                found[tap] = encoder
        return found

    def _encode(
        self, image: PreparedImage, latents: ImageLatents | None, encoded_already: Collection[str]
    ) -> "_Encoded":
        """The rows of one image as they lie on disk."""
        if latents is None:
            return _Encoded(image.number, image.facts, [], 0, None)
        if not latents.are_storable():
            facts = dataclasses.replace(image.facts, reason="the teacher's latents are not finite in float16")
            return _Encoded(image.number, facts, [], len(image.crops), None)
        rows = {}
        for tap, values in latents.read().items():
            target = self.recipe.target_name(tap)
            codec = codec_named(self.writer.manifest.spec.targets[target].codec)
            is_encoded = tap in encoded_already
            rows[target] = values if is_encoded else codec.encode(values, self.writer.tables(target)).stored()
        views = [
            StoredView(fields, {target: rows[target][view] for target in rows}, kept)
            for view, (fields, kept) in enumerate(zip(image.fields, image.kept, strict=True))
        ]
        return _Encoded(image.number, image.facts, views, len(views), latents.views_at_once)

    def _write(self, items: Iterator["_Encoding"]) -> None:
        for first in items:
            block = first.block
            others = len(self.writer.manifest.images_of_block(block)) - 1  # counted, so that a whole unit is not lost
            with self.writer.unit(block) as unit:
                for item in itertools.chain([first], itertools.islice(items, others)):
                    image = item.encoded.result()
                    unit.add_stored(image.facts, image.views, views_at_once=image.views_at_once)
                    self._tell(block, image)
                unit.finish()

    def _tell(self, block: int, image: "_Encoded") -> None:
        key, views = self.source.keys[image.number], self.writer.manifest.views
        self.told(ImageDone(key, block, views, image.computed, image.facts.reason))


@dataclass(frozen=True, slots=True)
class _Encoded:
    number: int
    facts: ImageFacts
    views: list[StoredView]
    computed: int
    views_at_once: int | None


@dataclass(frozen=True, slots=True)
class _Encoding:
    """An image whose rows are being encoded."""

    block: int
    encoded: Future[_Encoded]


def _block_of(writer: StoreWriter, image: PreparedImage) -> int:
    return image.number // writer.manifest.spec.block_images


_IMAGES_BEHIND = 32
"""Images that may wait to be written: at 8 views of ViT-B/16 some 50 MB."""


def _encoders() -> int:
    """Threads that encode: numpy lets go of Python's lock while it computes."""
    return min(8, len(os.sched_getaffinity(0)))
