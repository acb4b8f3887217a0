"""The kinds of probes by name: each makes of labelled features one or more columns of answers."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from caev2.errors import ConfigError
from caev2.eval.cache import device_kind, images_digest
from caev2.eval.features import LabelledFeatures, Reading, Subject
from caev2.eval.probes.attentive import AttentiveSettings, attentive_probe
from caev2.eval.probes.augmented import Augmented, main_pooling
from caev2.eval.probes.few_shot import FewShotSettings, check_shots, few_shot_predict
from caev2.eval.probes.knn import knn_predict
from caev2.eval.probes.linear import hold_out, linear_probe
from caev2.eval.probes.official import OfficialSettings, official_probe
from caev2.eval.probes.ridge import PENALTIES
from caev2.eval.shares import BY_ITSELF
from caev2.pretrain.together.ranks import Company
from caev2.progress import Progress, Silent
from caev2.recipe import fingerprint
from caev2.store.images import ImageSource

DEFAULT_K = 20  # DINO reports 20, and so do those who compare with it


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnSettings:
    """How neighbours vote; see `knn`."""

    k: int | None = None
    """Neighbours; none: 20, or all images where there are fewer."""
    temperature: float = 0.07
    """The smaller, the more the nearest counts."""

    def __post_init__(self):
        if self.k is not None and self.k < 1:
            raise ConfigError(f"kNN cannot ask {self.k} neighbours. Give at least 1.")
        if not self.temperature > 0:
            raise ConfigError(f"The temperature of kNN is {self.temperature}. Give a number above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """Everything that may be chosen about the probes, by kind."""

    knn: KnnSettings = field(default_factory=KnnSettings)
    few_shot: FewShotSettings = field(default_factory=FewShotSettings)
    attentive: AttentiveSettings = field(default_factory=AttentiveSettings)
    official_linear: OfficialSettings = field(default_factory=OfficialSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one probe says of the val images, and how it came to that."""

    predicted: Int[Tensor, "draw image"]
    """One line for each draw of labelled images; of most probes there is one."""
    protocol: dict[str, Any]
    """Pooling and settings, chosen or given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One subject's features of both parts of a data set, and what is asked of them."""

    subject: Subject
    images: tuple[ImageSource, ImageSource]
    """Train and val."""
    reading: Reading
    """How images became features; its device is where probes are trained that take long."""
    train: LabelledFeatures
    val: LabelledFeatures
    classes: int
    seed: int
    settings: ProbeSettings
    progress: Progress = field(default_factory=Silent)
    """Who is told."""
    company: Company = BY_ITSELF
    """Who shares the work of probes in `TOGETHER`."""

    @property
    def pooling(self) -> str:
        """What probes look at that choose none."""
        return main_pooling(self.train.pooled)


def _ask_neighbours(task: Task) -> dict[str, Answers]:
    settings, images = task.settings.knn, len(task.train.labels)
    chosen = {"k": settings.k or min(DEFAULT_K, images), "temperature": settings.temperature}
    pooled = (task.train.pooled[task.pooling], task.train.labels, task.val.pooled[task.pooling])
    predicted = knn_predict(*pooled, classes=task.classes, **chosen)
    return {"knn": Answers(predicted=predicted[None], protocol={"pooling": task.pooling, **chosen})}


def _fit_linear(task: Task) -> dict[str, Answers]:
    found = linear_probe(
        task.train.pooled,
        task.train.labels,
        task.val.pooled,
        classes=task.classes,
        poolings=task.subject.poolings,
        seed=task.seed,
    )
    setting = {name: value for name, value in dataclasses.asdict(found).items() if name != "predictions"}
    return {"linear": Answers(predicted=found.predictions[None], protocol={"protocol": "fast", **setting})}


def _fit_few_shot(task: Task) -> dict[str, Answers]:
    settings, answers = task.settings.few_shot, {}
    for shots in settings.shots:
        predicted = few_shot_predict(
            task.train.pooled[task.pooling],
            task.train.labels,
            task.val.pooled[task.pooling],
            classes=task.classes,
            shots=shots,
            draws=settings.draws,
            seed=task.seed,
        )
        protocol = {
            "pooling": task.pooling,
            "head": "ridge, its penalty by leave-one-out",
            "penalties": PENALTIES,
            "shots": shots,
            "draws": settings.draws,
        }
        answers[f"{shots}-shot"] = Answers(predicted=predicted, protocol=protocol)
    return answers


def _fit_attentive(task: Task) -> dict[str, Answers]:
    assert task.train.tokens is not None, "whoever asks for this kind reads tokens"
    assert task.val.tokens is not None
    settings = task.settings.attentive
    found = attentive_probe(
        task.train.tokens,
        task.train.labels,
        task.val.tokens,
        classes=task.classes,
        settings=settings,
        seed=task.seed,
        device=task.reading.device,
        progress=task.progress,
    )
    setting = {name: value for name, value in dataclasses.asdict(found).items() if name != "predictions"}
    protocol = {"pooling": "cross-attention", **setting, "epochs": settings.epochs, "batch_size": settings.batch_size}
    return {"attentive": Answers(predicted=found.predictions[None], protocol=protocol)}


def _train_official(task: Task) -> dict[str, Answers]:
    """At the first rank the answers; the others help, and have none."""
    settings, (train, _) = task.settings.official_linear, task.images
    crops = Augmented(
        subject=task.subject,
        images=train,
        reading=task.reading,
        seed=task.seed,
        company=task.company,
        progress=task.progress,
    )
    found = official_probe(
        crops,
        task.train.labels,
        task.val.pooled[task.pooling] if task.company.ranks.is_first else None,
        task.val.labels,
        classes=task.classes,
        settings=settings,
        checkpoint=task.company.first(lambda: _epochs_of(task)),
    )
    if found is None:
        return {}
    protocol = {"protocol": "official", "pooling": task.pooling, **found.facts}
    return {"official linear": Answers(predicted=found.predictions[None], protocol=protocol)}


def _epochs_of(task: Task) -> Path | None:
    """The file of an official probe's epochs, named after its question; none where nothing is kept."""
    if task.reading.cache is None or task.subject.identity is None:
        return None
    question = {
        "subject": task.subject.identity,
        "images": [images_digest(source) for source in task.images],
        "size_px": task.subject.size_px,
        "resize_px": task.reading.resize_px,
        "orientation": task.reading.orientation,
        "device": device_kind(task.reading.device),
        "batch": task.reading.batch,
        "seed": task.seed,
        "settings": dataclasses.asdict(task.settings.official_linear),
    }
    return task.reading.cache / f"official-linear-{fingerprint(question)}.safetensors"


PROBES: dict[str, Callable[[Task], dict[str, Answers]]] = {
    "knn": _ask_neighbours,
    "linear": _fit_linear,
    "few-shot": _fit_few_shot,
    "attentive": _fit_attentive,
    "official-linear": _train_official,
}
"""By kind: the columns that it adds to a table."""

OF_TOKENS = ("attentive",)
"""Kinds that look at all tokens, and not at pooled ones."""

TOGETHER = {"official-linear"}
"""Kinds that read images, and so are asked by all ranks; the others by the first, which has all features."""


def refuse_hopeless(labels: Int[Tensor, " image"], kind: str, settings: ProbeSettings) -> None:
    """Refuse labels that a probe can do nothing with, whatever the features.

    Raises:
        SourceError: There are too few images of a class.
        ConfigError: There are fewer images than neighbours.
    """
    if kind in ("linear", "attentive"):
        hold_out(labels, share=0.1, seed=0)
    elif kind == "official-linear":
        settings.official_linear.batch_of(len(labels), width=0)
    elif kind == "few-shot":
        check_shots(labels, settings.few_shot.shots)
    elif kind == "knn" and (settings.knn.k or 1) > len(labels):
        raise ConfigError(
            f"kNN cannot ask k = {settings.knn.k} of {len(labels)} train images. Give 1 to {len(labels)} neighbours."
        )


def settings_of(kinds: tuple[str, ...], settings: ProbeSettings) -> dict[str, Any]:
    """What was asked for, by kind; kinds without a choice say nothing."""
    named = {kind: getattr(settings, kind.replace("-", "_"), None) for kind in kinds}
    return {kind: dataclasses.asdict(chosen) for kind, chosen in named.items() if chosen is not None}
