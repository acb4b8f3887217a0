"""What can be judged: a run, a random start, a teacher, the pixels themselves."""

from pathlib import Path

import torch
from torch import Tensor

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.features import Pooled, Subject
from caev2.extract.catalog import load_teacher
from caev2.extract.teacher import Teacher
from caev2.pretrain.checkpoint import latest_checkpoint, load_weights
from caev2.pretrain.identity import read_identity
from caev2.pretrain.model import CAEv2, build
from caev2.pretrain.recipes import RECIPES
from caev2.pretrain.step import normalise_images
from caev2.recipe import load


def open_run(run: Path, device: str) -> CAEv2:
    """The student of a run's latest checkpoint.

    Raises:
        CheckpointError: There is no run, no checkpoint, or a damaged one.
    """
    identity = read_identity(run)
    checkpoint = latest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{run} has no checkpoint yet. Let `caev2 pretrain` reach its first one.")
    model = build(identity.model, 0)
    load_weights(checkpoint.path, model)
    return model.to(device).eval()


def open_subject(
    *,
    run: Path | None = None,
    random_init: str | None = None,
    teacher: str | None = None,
    pixels: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Subject:
    """The one thing that is named.

    Args:
        run: Folder of a run.
        random_init: A recipe, whose untrained student is judged.
        teacher: Name of a teacher.
        pixels: Side of the crops whose pixels are the features.
        seed: Of the random start.
        device: Where to compute.
    """
    if run is not None:
        return student_subject(open_run(run, device), str(run))
    if random_init is not None:
        model = build(load(random_init, RECIPES).model, seed).to(device).eval()
        return student_subject(model, f"random start of {random_init}")
    if teacher is not None:
        return teacher_subject(load_teacher(teacher, device=device))
    if pixels is None or pixels < 1:
        raise ConfigError(f"The side of a crop cannot be {pixels} pixels.")
    return Subject(name="pixels", size_px=pixels, pool=_flatten_pixels)


def student_subject(model: CAEv2, name: str) -> Subject:
    """The encoder of a student, all patches visible: class token, or mean of the patches, after the final norm."""

    def pool(crops: Tensor) -> Pooled:
        return _pool(model.encoder(normalise_images(crops)))

    return Subject(name=name, size_px=model.settings.image_px, pool=pool)


def teacher_subject(teacher: Teacher) -> Subject:
    """A teacher at its projected tokens, which are what a student learns."""

    def pool(crops: Tensor) -> Pooled:
        return _pool(teacher.tokens(crops, ["projected"])["projected"])

    return Subject(name=f"teacher {teacher.description.name}", size_px=teacher.description.image_px, pool=pool)


def _pool(tokens: Tensor) -> Pooled:
    return {"class": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}


def _flatten_pixels(crops: Tensor) -> Pooled:
    return {"pixels": crops.flatten(1).to(torch.float32)}
