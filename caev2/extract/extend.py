"""More views for a store: extracted beside it as a part, then grafted onto it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from caev2.errors import StoreMismatch
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.run import extract
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress
from caev2.store.disk import writing
from caev2.store.images import ImageSource
from caev2.store.manifest import Manifest, TargetSpec
from caev2.store.reader import Store
from caev2.store.rewriting.graft import Grown, graft
from caev2.store.sources.subset import choose_listed

LoadTeacher = Callable[[Mapping[str, Any]], Teacher]
"""From a teacher as a store records it to the teacher."""


def extend(
    store: Path,
    source: ImageSource,
    views: int,
    *,
    load: LoadTeacher,
    workers: int = 2,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Grown:
    """Give every image of a store more views; interrupted, the same call goes on.

    The rows that are there stay as they are. The new ones lie in `STORE.growing` until they are complete: meanwhile the
    store can be used as before.

    Args:
        store: A sealed store.
        source: What it was extracted from.
        views: How many views it is to have.
        load: Finds its teacher, or each of its teachers.
        workers: Processes that decode and crop.
        device: Where the teacher runs.
        progress: Who is told.

    Raises:
        StoreMismatch: The store has that many already, or the images are others.
        TeacherError: A teacher cannot be found.
    """
    parts = _teachers_of(Store(store, allow_unsealed=True).manifest)
    manifest = Store(store, allow_unsealed=True).manifest
    growing = [store.with_name(f"{store.name}.growing{number or ''}") for number in range(len(parts))]
    if manifest.state == "sealed":
        if views <= manifest.views:
            raise StoreMismatch(f"{store} has {manifest.views} views already, {views} were asked for. Nothing to do.")
        source = _images_of(store, source)
        for part, names in zip(growing, parts, strict=True):
            recipe = _recipe_of(manifest, names, views, workers)
            teacher = load(manifest.spec.targets[names[0]].teacher)
            extract(source, part, recipe, teacher=teacher, calibration=store, device=device, progress=progress)
        for part in growing[1:]:
            graft(growing[0], part, progress)
    try:
        grown = graft(store, growing[0], progress)
    except StoreMismatch as problem:
        raise StoreMismatch(
            f"{problem} Restore the images, remove {' and '.join(map(str, growing))}, and run the same command again."
        ) from None
    with writing(store):
        for part in growing:
            shutil.rmtree(part)
    return grown


_IMAGES_COMPARED = 256


def _images_of(store: Path, source: ImageSource) -> ImageSource:
    """The images of a store; their keys are compared, and the bytes of some: all are when everything is computed.

    Raises:
        StoreMismatch: They are not what the store was extracted from.
    """
    opened = Store(store)
    if source.digest() != opened.manifest.source_digest:
        source = choose_listed(
            source, opened.keys, opened.manifest.classes
        )  # a store of some images of a larger source
    if source.digest() != opened.manifest.source_digest:
        raise StoreMismatch(f"{source.root} holds other images than {store} was extracted from: keys or labels differ.")
    every = max(1, len(opened) // _IMAGES_COMPARED)
    for image in range(0, len(opened), every):
        found = xxhash.xxh3_128_hexdigest(source.read(image))
        if found != opened.source_digests[image]:
            raise StoreMismatch(
                f"Image {source.keys[image]!r} in {source.root} is not the file that {store} was extracted from: its "
                f"xxh3-128 is {found}, it was {opened.source_digests[image]}. Restore it, then run the same again."
            )
    return source


def _teachers_of(manifest: Manifest) -> list[list[str]]:
    """The targets that one extraction made, by name: of one teacher, at one size, in one codec."""
    parts: dict[str, list[str]] = {}
    for name, target in sorted(manifest.spec.targets.items()):
        made = sorted(target.teacher.items()), target.from_crops, target.codec, _prefix(name, target)
        parts.setdefault(repr(made), []).append(name)
    return list(parts.values())


def _recipe_of(manifest: Manifest, names: list[str], views: int, workers: int) -> ExtractRecipe:
    """What would have made these targets, for the views that are missing."""
    targets = [manifest.spec.targets[name] for name in names]
    first = targets[0]
    return ExtractRecipe(
        views=manifest.spec.views,
        view_count=views - manifest.views,
        first_view=manifest.first_view + manifest.views,
        target_prefix=_prefix(names[0], first),
        teacher=first.teacher["name"],
        teacher_px=first.teacher["image_px"],
        from_crops=first.from_crops,
        taps=tuple(target.tap for target in targets),
        precision=first.teacher["precision"],
        codec=first.codec,
        crops=manifest.spec.crops,
        layout=manifest.layout,
        block_images=manifest.spec.block_images,
        teacher_batch=manifest.spec.teacher_batch,
        workers=workers,
    )


def _prefix(name: str, target: TargetSpec) -> str:
    return name.removesuffix(target.tap.replace(":", "-"))
