"""What can be judged: a student, a teacher, the pixels themselves."""

from pathlib import Path

import torch
from torch import Tensor

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.checks import check_weights
from caev2.eval.features import Pooled, Subject
from caev2.extract.teachers.teacher import Teacher
from caev2.pretrain.checkpoint import Checkpoint, latest_checkpoint, load_weights
from caev2.pretrain.identity import RunIdentity, read_identity
from caev2.pretrain.model import CAEv2, build
from caev2.pretrain.step import normalise_images


def find_checkpoint(run: Path) -> tuple[RunIdentity, Checkpoint]:
    """What a run is, and its latest checkpoint, not read yet.

    Raises:
        CheckpointError: There is no run, or it has no checkpoint.
    """
    identity = read_identity(run)
    checkpoint = latest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{run} has no checkpoint yet. Let `caev2 pretrain` reach its first one.")
    return identity, checkpoint


def open_run(run: Path, device: str) -> CAEv2:
    """The student of a run's latest checkpoint.

    Raises:
        CheckpointError: There is no run, no checkpoint, or a damaged one.
    """
    identity, checkpoint = find_checkpoint(run)
    return load_student(identity, checkpoint.path, device)


def load_student(identity: RunIdentity, checkpoint: Path, device: str, *, averaged: bool = False) -> CAEv2:
    """The student of one checkpoint; with `averaged`, with the moving average of its weights.

    Raises:
        CheckpointError: The file is damaged, of other sizes, or holds numbers that are not finite.
    """
    model = build(identity.model, 0)
    load_weights(checkpoint, model, fingerprint=identity.fingerprint(), averaged=averaged)
    check_weights(model.state_dict().items(), str(checkpoint))
    return model.to(device).eval()


def student_subject(model: CAEv2, name: str) -> Subject:
    """The encoder of a student, all patches visible: class token, or mean of the patches, after the final norm."""

    def pool(crops: Tensor) -> Pooled:
        return _pool(model.encoder(normalise_images(crops)))

    return Subject(name=name, size_px=model.settings.image_px, pool=pool)


def teacher_subject(teacher: Teacher, name: str, tap: str = "projected") -> Subject:
    """A teacher at one tap: what a student learns from it."""

    def pool(crops: Tensor) -> Pooled:
        return _pool(teacher.tokens(crops, [tap])[tap])

    return Subject(name=name, size_px=teacher.description.image_px, pool=pool, sha256=teacher.description.sha256)


def pixel_subject(size_px: int) -> Subject:
    """The pixels of a crop as they are: what any representation has to beat.

    Raises:
        ConfigError: No crop has this side.
    """
    if size_px < 1:
        raise ConfigError(f"The side of a crop cannot be {size_px} pixels.")
    return Subject(name="pixels", size_px=size_px, pool=_flatten_pixels)


def _pool(tokens: Tensor) -> Pooled:
    return {"class": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}


def _flatten_pixels(crops: Tensor) -> Pooled:
    return {"pixels": crops.flatten(1).to(torch.float32)}
