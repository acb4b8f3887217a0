"""What a teacher is shown of a view: its crop, its box at the teacher's own size, or its crop resized.

A view is what the student sees. A teacher of that size sees the very crop. One of another size sees the same box, with
the same jitter and flip, resized from the source to its own size; or, where the crops that a store keeps are all there
is, those crops resized, which its target records as `from_crops`.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from caev2.errors import ConfigError, SourceError
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.teacher import TeacherDescription
from caev2.progress import Progress
from caev2.store.images import ImageSource
from caev2.store.manifest import StoreSpec, TargetSpec
from caev2.store.pixels.crops import Crops
from caev2.store.pixels.kept import KeptViews
from caev2.store.pixels.replay import ViewReplay
from caev2.store.pixels.views import ViewSettings, resize_crop

PUBLISHED_PATCH_PX = 16
"""Patches of the students of all published sizes (2211.09799)."""


def over_kept_views(recipe: ExtractRecipe, source: KeptViews) -> ExtractRecipe:
    """A recipe with all that a part has to share with the store whose kept crops it is made of."""
    return dataclasses.replace(recipe, **_shared_with(source), from_crops=True)


def _shared_with(source: KeptViews) -> dict:
    manifest = source.store.manifest
    return {
        "views": manifest.spec.views,
        "view_count": manifest.views,
        "first_view": manifest.first_view,
        "block_images": manifest.spec.block_images,
        "teacher_batch": manifest.spec.teacher_batch,
        "crops": manifest.spec.crops,
    }


def refuse_other_views(source: ImageSource, recipe: ExtractRecipe, teacher_px: int | None = None) -> None:
    """Check that what a recipe asks for can be made of kept crops, where they are the source.

    Args:
        source: Images, or kept views.
        recipe: Which views of them.
        teacher_px: The teacher's size, once it is known.

    Raises:
        ConfigError: It cannot.
    """
    if not isinstance(source, KeptViews):
        return
    for name, there in _shared_with(source).items():
        if (wanted := getattr(recipe, name)) != there:
            raise ConfigError(
                f"The crops in {source.root} are kept: its {name} is {there}, and {wanted} was asked for. Leave that "
                "setting out, or extract from the images."
            )
    size_px = recipe.views.size_px
    if teacher_px not in (None, size_px) and not recipe.from_crops:
        raise ConfigError(
            f"{source.root} has crops of {size_px} pixels and no images, the teacher takes {teacher_px}. Have the "
            "crops resized (--from-crops), or extract from the images."
        )


def tell_sizes(recipe: ExtractRecipe, teacher: TeacherDescription, progress: Progress) -> None:
    """Say, where they differ, what teacher and student see; and warn where no student has the teacher's grid."""
    size_px, teacher_px = recipe.views.size_px, teacher.image_px
    if teacher_px == size_px:
        return
    grid = teacher_px // teacher.patch_px
    made = "the student's crops resized to" if recipe.from_crops else "crops of"
    fits = f"; a student of {size_px // grid}-pixel patches has its {grid}x{grid} grid" if size_px % grid == 0 else ""
    progress.say(f"extract: the teacher sees {made} {teacher_px} pixels, the student {size_px}{fits}")
    if size_px % grid:
        progress.warn(
            f"{teacher.name} cuts {teacher_px} pixels into {grid}x{grid} patches, and {size_px} pixels cannot be cut "
            f"into as many: no student of these views can learn from it.{_offer(size_px, teacher.patch_px)}"
        )


def _offer(size_px: int, patch_px: int) -> str:
    """The size at which a teacher has the published grid, if these views have it."""
    grid, rest = divmod(size_px, PUBLISHED_PATCH_PX)
    return "" if rest else f" --set teacher_px={grid * patch_px} gives it {grid}x{grid}, that of 16-pixel patches."


def sees_boxes(spec: StoreSpec) -> bool:
    """Whether a teacher of a store saw more than its crops: boxes at a size of its own."""
    targets = spec.targets.values()
    return any(target.teacher.get("image_px") != spec.views.size_px and not target.from_crops for target in targets)


def show(
    crops: Crops, views: ViewSettings, target: TargetSpec, teacher_px: int, view: int, image: int
) -> UInt8[np.ndarray, "size size 3"]:
    """What a teacher saw of a row, made anew.

    Args:
        crops: Of the store.
        views: Of the store.
        target: Whose teacher.
        teacher_px: The size it takes.
        view: Which view.
        image: Number of the image.

    Raises:
        SourceError: It saw the box at its own size, and there are no images.
        PixelDrift: The pixels are not what they were.
    """
    if teacher_px == views.size_px:
        return crops.crop(view, image)
    if target.from_crops:
        return resize_crop(crops.crop(view, image), teacher_px, views.interpolation)
    if isinstance(crops, ViewReplay):
        return crops.box(view, image, teacher_px)
    raise SourceError(
        f"The teacher saw boxes at {teacher_px} pixels; there are crops of {views.size_px} only. Give --images, the "
        "folder that the store was extracted from."
    )
