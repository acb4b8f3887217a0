"""What a run of a grid learns from: a store of the study, or a live teacher that is shown views like the store's."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caev2.ablate.grids import Online
from caev2.errors import ConfigError, SourceError, TeacherError
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.teachers.recorded import load_recorded_teacher
from caev2.extract.teachers.teacher import PooledTeacherDescription, Teacher, TeacherDescription
from caev2.online.fresh import Fresh
from caev2.pretrain.identity import RunIdentity, identify
from caev2.pretrain.learning.lesson import MakeLesson, precision_of, store_lesson
from caev2.pretrain.plan import fit_recipe, learning_rates, row_order
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.together.ranks import ALONE
from caev2.progress import Silent
from caev2.store.images import Place, open_images
from caev2.store.manifest import TargetSpec
from caev2.store.reader import Store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A run as it is known before it begins."""

    identity: RunIdentity
    recipe: PretrainRecipe
    """With its head as wide as the target."""
    steps: int


def know_run(recipe: PretrainRecipe, store: Store, online: Online | None, images: Place | None, device: str) -> Known:
    """Who a run is and how long; nothing is loaded or written.

    Raises:
        StoreMismatch: The recipe does not fit the store.
        ConfigError: The recipe is too long or too short, images are needed and not given, or nobody knows in which
            precision a GPU that is elsewhere computes.
    """
    if recipe.precision is None and device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            "Runs on GPUs of other machines: which precision those know cannot be asked here, and it is a part of what "
            "a run is. Say it: --set precision=bf16, or fp32."
        )
    if online is not None:
        lesson = _fresh(recipe, store, images, _Described(_described(store, recipe.target)))(
            device=device, ranks=ALONE, progress=Silent()
        )
        return Known(identity=lesson.identify(None), recipe=lesson.recipe, steps=lesson.batches.order.total_steps)
    fitted = fit_recipe(_with_all_views(recipe, store), store)
    order = row_order(fitted, store)
    learning_rates(fitted, order)  # refuses a warm-up that is too long
    return Known(identity=identify(fitted, store, precision_of(fitted, device)), recipe=fitted, steps=order.total_steps)


def lesson_maker(
    recipe: PretrainRecipe,
    store: Store,
    online: Online | None,
    images: Place | None,
    device: str,
    *,
    teacher: str | None = None,
) -> MakeLesson:
    """Who makes the lesson of a run; for a live teacher, its weights are looked for and loaded.

    Raises:
        TeacherError: The store's teacher is not found.
        ConfigError: Images are needed and not given.
    """
    if online is None:
        return partial(store_lesson, store, recipe, images=images)
    return _fresh(recipe, store, images, load_live_teacher(recipe, store, device, teacher))


def load_live_teacher(recipe: PretrainRecipe, store: Store, device: str, name: str | None) -> Teacher:
    """The teacher of a store's target, known by the digest of its weights.

    Args:
        recipe: Names the target.
        store: Records the teacher.
        device: Where it computes.
        name: Under which it is looked for first; a store records which weights they were, and not where they lie.

    Raises:
        TeacherError: It is not found.
    """
    recorded = store.manifest.spec.targets[store.target(recipe.target)].teacher
    names = () if name is None else (name,)
    try:
        return load_recorded_teacher(recorded, device, names, precision=recorded["precision"])
    except TeacherError as problem:
        raise TeacherError(
            f"The live teacher of {store.path} is not found: {problem}. Say where its weights lie: --teacher "
            "openclip:ViT-B-16@FILE, as it was called when the store was made."
        ) from None


def _with_all_views(recipe: PretrainRecipe, store: Store) -> PretrainRecipe:
    """All views are all views, whether they were counted or not: one run, and not two."""
    return dataclasses.replace(recipe, views=None) if recipe.views == store.views else recipe


def _fresh(recipe: PretrainRecipe, store: Store, images: Place | None, teacher: Teacher) -> Fresh:
    """New views, drawn as the store's were, of the images that the store has."""
    if images is None:
        raise ConfigError(
            f"A live teacher is shown the images themselves: give --images, what {store.path} was extracted from."
        )
    source, spec = open_images(images), store.manifest.spec
    keys, valid = store.keys, {store.keys[number] for number in store.valid_images}
    if missing := sorted(set(keys) - set(source.keys)):
        raise SourceError(
            f"{images} lacks {missing[0]!r}, which {store.path} was extracted from. Give the images of the study."
        )
    target = spec.targets[store.target(recipe.target)]
    views = ExtractRecipe(
        views=spec.views,
        crops=spec.crops,
        block_images=spec.block_images,
        teacher_batch=spec.teacher_batch,
        from_crops=target.from_crops,
        taps=(target.tap,),
    )
    left_out = tuple(key for key in source.keys if key not in valid)
    recipe = dataclasses.replace(recipe, target=target.tap.replace(":", "-"))
    return Fresh(images=source, recipe=recipe, views=views, teacher=teacher, left_out=left_out)


class _Described:
    """A teacher of which only its description is known, which is all that an identity asks for.

    Args:
        description: As the store records it.
    """

    def __init__(self, description: TeacherDescription):
        self.description = description

    def tokens(
        self, images: UInt8[Tensor, "image size size 3"], taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "..."]]:
        """Nobody asks it."""
        raise NotImplementedError


def _described(store: Store, target_name: str) -> TeacherDescription:
    """The description that a live teacher will have, with the width of the one tap that is asked of it."""
    target: TargetSpec = store.manifest.spec.targets[store.target(target_name)]
    recorded = {**target.teacher, "mean": tuple(target.teacher["mean"]), "std": tuple(target.teacher["std"])}
    recorded["widths"] = {target.tap: target.width}
    kind = PooledTeacherDescription if "class_row" in recorded else TeacherDescription
    return kind(**{"tokens": target.tokens, **recorded})
