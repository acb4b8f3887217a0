"""Who is compared, each as a step on batches that lie on the device already.

What several need is made once and shared: students of the same kind train the same weights on.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import cycle

import torch
from torch import Tensor

from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.openclip import OpenClipTeacher
from caev2.extract.teachers.teacher import Precision, default_precision, normalise
from caev2.online.taught import AsComputed, Lecture, TaughtInputs
from caev2.pretrain.learning.decode import TargetDecoder
from caev2.pretrain.learning.step import StoredInputs, normalise_images
from caev2.pretrain.plan import fit_recipe, row_order
from caev2.pretrain.student.model import build
from caev2.pretrain.supply.batches import Batch, StepBatches
from caev2.pretrain.weights.official import to_official
from caev2.store.pixels.replay import open_crops
from caev2.store.reader import Store

from .bare import BareStudent, forward_backward
from .engine import Engine
from .plain_loop import PlainLoop
from .plain_student import PlainStudent
from .setting import Material, Setting

STORE, LIVE, LIVE_BF16, PLAIN = "a: store", "b: live teacher", "b: teacher in bf16", "c: plain loop"
STUDENT, TIMM, TIMM_UNFUSED, TEACHER = "c: student alone", "bare timm", "bare timm, unfused", "bare teacher"
BATCHES = 4
"""Different ones that a step goes through."""
Step = Callable[[], object]
Learn = Callable[[Batch], object]


class Bench:
    """Makes whatever a contender needs, when it is needed.

    Args:
        setting: What is compared.
        material: On what.
    """

    def __init__(self, setting: Setting, material: Material):
        self.setting, self.material, self.device = setting, material, setting.device
        self.store = Store(material.store)
        self.recipe = fit_recipe(
            dataclasses.replace(setting.recipe, batch_size=setting.batch, epochs=10**6), self.store
        )

    @cached_property
    def stored(self) -> StepBatches:
        """The batches of a run on the store."""
        return StepBatches(
            store=self.store,
            crops=open_crops(self.store, None),
            order=row_order(self.recipe, self.store),
            model=self.recipe.model,
            mask=self.recipe.mask,
            target=self.recipe.target,
            seed=self.recipe.seed,
        )

    @cached_property
    def decoder(self) -> TargetDecoder:
        """Of the store's codes."""
        plan = self.store.decode_plan(self.recipe.target)
        return TargetDecoder(plan, tokens=self.recipe.model.patches + 1).to(self.device)

    @cached_property
    def engine(self) -> Engine:
        """This package's."""
        return Engine(self.recipe, self.setting)

    @cached_property
    def plain(self) -> PlainLoop:
        """The plain loop, from the same weights as the engine."""
        student = PlainStudent(self.recipe.model)
        student.load_state_dict(to_official(build(self.recipe.model, self.recipe.seed).state_dict()))
        return PlainLoop(student, self.device)

    @cached_property
    def bare(self) -> BareStudent:
        """The timm blocks."""
        return BareStudent(self.recipe.model, self.recipe.mask.count).to(self.device)

    @cached_property
    def teacher(self) -> OpenClipTeacher:
        """In the precision that a store records: fp32 on a CPU, fp16 on a GPU."""
        return self._load_teacher(default_precision(self.device))

    @cached_property
    def fast_teacher(self) -> OpenClipTeacher:
        """In bf16."""
        return self._load_teacher("bf16")

    def _load_teacher(self, precision: Precision) -> OpenClipTeacher:
        teacher = load_teacher(self.material.teacher_name, device=self.device, precision=precision)
        assert isinstance(teacher, OpenClipTeacher)
        return teacher

    def batches(self) -> Iterator[Batch]:
        """The first batches of the run on the device, again and again."""
        return cycle([self.stored.batch_of(step).to(self.device) for step in range(BATCHES)])

    def masks(self, batch: Batch) -> Tensor:
        """One for each patch."""
        mask = torch.zeros(len(batch.crops), self.recipe.model.patches, dtype=torch.bool, device=self.device)
        return mask.scatter_(1, batch.masked, True)

    def learn_stored(self) -> Learn:
        """This engine's step on a store's batches."""
        return self.engine.step(StoredInputs(self.decoder))

    def learn_live(self, *, fast: bool) -> Learn:
        """This engine's step with a live teacher."""
        teacher = self.fast_teacher if fast else self.teacher
        lecture = Lecture(teacher=teacher, tap=self.recipe.target, batch=self.setting.batch)
        return self.engine.step(TaughtInputs(lecture, AsComputed()))


def store_step(bench: Bench) -> Step:
    """This engine on stored codes."""
    batches, learn = bench.batches(), bench.learn_stored()
    return lambda: learn(next(batches))


def live_step(bench: Bench, *, fast: bool = False) -> Step:
    """This engine with a live teacher."""
    batches, learn = bench.batches(), bench.learn_live(fast=fast)
    return lambda: learn(next(batches))


def plain_step(bench: Bench) -> Step:
    """The plain loop with its teacher."""
    mean, std = bench.teacher.description.mean, bench.teacher.description.std
    ready = [
        [normalise_images(batch.crops), normalise(batch.crops, mean, std), bench.masks(batch)]
        for batch, _ in zip(bench.batches(), range(BATCHES), strict=False)
    ]
    batches = cycle(ready)
    return lambda: bench.plain.step_with(bench.teacher, next(batches))


def student_step(bench: Bench) -> Step:
    """The plain loop's student on latents that are there."""
    ready = [
        (normalise_images(batch.crops), bench.decoder(batch.targets), bench.masks(batch))
        for batch, _ in zip(bench.batches(), range(BATCHES), strict=False)
    ]
    batches = cycle(ready)
    return lambda: bench.plain.step(*next(batches))


def timm_step(bench: Bench, *, fused: bool) -> Step:
    """Stock blocks, forward and backward."""
    images = normalise_images(next(bench.batches()).crops)
    return lambda: forward_backward(bench.bare, images, fused=fused)


def teacher_step(bench: Bench) -> Step:
    """The teacher's forward pass."""
    batches = bench.batches()
    return lambda: bench.teacher.tokens(next(batches).crops, ["projected"])


CONTENDERS: dict[str, Callable[[Bench], Step]] = {
    STORE: store_step,
    LIVE: live_step,
    LIVE_BF16: lambda bench: live_step(bench, fast=True),
    PLAIN: plain_step,
    STUDENT: student_step,
    TIMM: lambda bench: timm_step(bench, fused=True),
    TIMM_UNFUSED: lambda bench: timm_step(bench, fused=False),
    TEACHER: teacher_step,
}


def chosen(setting: Setting, *, end_to_end: bool = False) -> list[str]:
    """Who takes part: a teacher in bf16 only beside a student in bf16 on a CPU, where it would be in fp32."""
    left_out = set() if setting.precision == "bf16" and not setting.on_gpu else {LIVE_BF16}
    everybody = (STORE, LIVE, LIVE_BF16, PLAIN) if end_to_end else CONTENDERS
    return [name for name in everybody if name not in left_out]
