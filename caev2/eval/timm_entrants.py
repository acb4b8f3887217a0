"""timm's models as something to judge: `timm:NAME` with its published weights, `timm:NAME@FILE` with those of a file.

`NAME` may carry a tag, as timm writes it: MODEL.TAG. Vision transformers are read token by token, as teachers are. Of
any other network there is what it pools for its classifier, and no tokens. Pixels are normalised as the model's
published weights expect it.
"""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from caev2.errors import ConfigError
from caev2.eval.entrants import Entrant
from caev2.eval.features import Subject
from caev2.eval.subjects import teacher_subject
from caev2.eval.trunk import Pooled
from caev2.extract.teachers import timm_models
from caev2.extract.teachers.hub import fetch_weights
from caev2.extract.teachers.identity import tower_sha256
from caev2.extract.teachers.names import TeacherName, split_name
from caev2.extract.teachers.teacher import check_images, normalise
from caev2.extract.teachers.trunks import build_for_size, known_trunks, load_trunk, weights_alone
from caev2.extract.teachers.weights import read_tower
from caev2.recipe import nearest

SCHEME = "timm:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmEntry:
    """One of timm's models, its weights not read yet."""

    name: TeacherName
    """With a tag, if its published weights are meant."""
    size_px: int | None
    """Side of its crops; none: that of its published weights."""

    @classmethod
    def parse(cls, text: str, size_px: int | None = None) -> "TimmEntry":
        """Take a name apart; all is checked that can be known without the weights.

        Raises:
            ConfigError: timm does not know the model or its tag, or has no weights for it and no file is named.
        """
        name = split_name(text)
        model, _, tag = (name.architecture or "").partition(".")
        if name.tag is not None or not model:
            raise ConfigError(f"{text!r} names no model. Write timm:MODEL, timm:MODEL.TAG or timm:MODEL@FILE.")
        if not timm.is_model(model):
            raise ConfigError(f"timm has no model called {model!r}. {_closest(model)}")
        tags = timm_models.tags_of(name)
        if not tag and name.path is None:
            if not tags:
                raise ConfigError(f"timm has no weights for {model}. Give a file of them: timm:{model}@FILE.")
            tag = _default_tag(model, tags)
            name = dataclasses.replace(name, architecture=f"{model}.{tag}")
        if tag and tag not in tags:
            raise ConfigError(f"timm knows no weights called {tag!r} for {model}. {nearest(tag, tags)}")
        timm_models.refuse_doubtful_pixels(name)
        if model in known_trunks():
            timm_models.check_name(name)
        return cls(name=name, size_px=size_px)

    @property
    def _model(self) -> str:
        return (self.name.architecture or "").partition(".")[0]

    @property
    def _is_stack(self) -> bool:
        return self._model in known_trunks()

    def pretrained(self) -> Entrant:
        """The model with its weights."""
        return Entrant(role="model", name=f"{SCHEME}{self.name.architecture}", open=self._open)

    def random_start(self, seed: int) -> Entrant:
        """The model as timm starts it, before any training."""
        name = f"random start of {SCHEME}{self._model}"
        return Entrant(role="random start", name=name, open=lambda device: self._open_untrained(name, seed, device))

    def _open(self, device: str) -> Subject:
        label = f"{SCHEME}{self.name.architecture}"
        if self._is_stack:
            options: dict[str, Any] = {"precision": None, "image_px": self.size_px, "cache": None}
            return teacher_subject(timm_models.load(self.name, device=device, **options), label)
        network = _Network.build(self.name, self.size_px)
        return network.load(self.name).subject(label, device)

    def _open_untrained(self, label: str, seed: int, device: str) -> Subject:
        if self._is_stack:
            teacher = timm_models.untrained(self.name, device=device, seed=seed, image_px=self.size_px)
            return teacher_subject(teacher, label)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Network.build(self.name, self.size_px)
        return network.subject(label, device)


def _closest(model: str) -> str:
    """The most similar names; all of them would fill pages."""
    close = difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.6)
    return nearest(model, close) if close else "timm.list_models() tells all of them."


def _default_tag(model: str, tags: list[str]) -> str:
    found = get_pretrained_cfg(model)
    return found.tag if found and found.tag in tags else tags[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """A network that is no stack of blocks over one grid, without its classifier."""

    model: Any
    architecture: str
    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classifiers: tuple[str, ...]
    """What the names of its classifiers' tensors begin with."""

    @classmethod
    def build(cls, name: TeacherName, size_px: int | None) -> "_Network":
        """Make the modules.

        Raises:
            ConfigError: It cannot take crops of that size.
        """
        architecture = name.architecture or ""
        model = architecture.partition(".")[0]
        facts = get_pretrained_cfg(architecture, allow_unregistered=True)
        assert facts is not None, "as the name was checked"
        size = size_px or facts.input_size[-1]
        sized: dict[str, Any] = {"img_size": size} if facts.fixed_input_size else {}
        built = build_for_size(
            lambda: timm.create_model(model, num_classes=0, pretrained=False, **sized), name.canonical, size
        )
        heads = facts.classifier or ()
        heads = (heads,) if isinstance(heads, str) else heads
        return cls(
            model=built,
            architecture=architecture,
            size_px=size,
            mean=timm_models.channels_of(facts.mean),
            std=timm_models.channels_of(facts.std),
            classifiers=tuple(f"{head}." for head in heads),
        )

    def load(self, name: TeacherName) -> "_Network":
        """Put the weights of a file in, or the published ones.

        Raises:
            TeacherError: There are none, or they are of another network.
        """
        file = read_tower(name.path or fetch_weights(timm_models.published(name), cache=None), prefix="")
        weights = {key: value for key, value in file.weights.items() if not key.startswith(self.classifiers)}
        load_trunk(self.model, dataclasses.replace(file, weights=weights), name=name.canonical)
        return self

    def subject(self, label: str, device: str) -> Subject:
        """What is judged: what the network pools."""
        sha256 = tower_sha256(weights_alone(self.model.state_dict()))
        model = self.model.eval().requires_grad_(False).to(device)

        def pool(crops: Tensor) -> Pooled:
            check_images(crops, self.size_px)
            return {"pooled": model(normalise(crops, self.mean, self.std)).flatten(1)}

        return Subject(
            name=label,
            size_px=self.size_px,
            pool=pool,
            sha256=sha256,
            identity=f"timm {self.architecture} {sha256} {self.size_px} {self.mean} {self.std}",
        )
