"""What can be judged: a student, a teacher, the pixels themselves."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.checks import check_weights
from caev2.eval.features import Subject
from caev2.eval.trunk import Pooled, Trunk
from caev2.extract.teachers.teacher import Teacher
from caev2.pretrain.identity import RunIdentity, read_identity
from caev2.pretrain.learning.step import normalise_images
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.weights.checkpoint import Checkpoint, latest_checkpoint, load_weights


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


def student_subject(model: CAEv2, name: str, identity: str | None = None) -> Subject:
    """The encoder of a student, all patches visible, after the final norm.

    Args:
        model: The student.
        name: What it is, in a few words.
        identity: Of its weights; none: features are not kept.
    """

    def read(crops: Tensor, numbers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        with _outputs_of(model.encoder.blocks, numbers) as outputs:
            tokens = model.encoder(normalise_images(crops))
        return tokens, [outputs[number] for number in numbers]

    trunk = Trunk(depth=len(model.encoder.blocks), read=read)
    return Subject(name=name, size_px=model.settings.image_px, pool=trunk.pool, trunk=trunk, identity=identity)


@contextlib.contextmanager
def _outputs_of(blocks: nn.ModuleList, numbers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """What some blocks, counted from 1, give while one looks."""
    outputs: dict[int, Tensor] = {}

    def keep(number: int, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        del module, inputs
        outputs[number] = output

    hooks = [blocks[number - 1].register_forward_hook(partial(keep, number)) for number in numbers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def teacher_subject(teacher: Teacher, name: str, tap: str | None = None) -> Subject:
    """A teacher at one tap, or at its last one: what a student learns from it; and the outputs of its blocks."""
    facts = teacher.description
    tap = tap or last_tap(facts.widths)

    def read(crops: Tensor, numbers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        taps = [f"block:{number}" for number in numbers]
        found = teacher.tokens(crops, list(dict.fromkeys([tap, *taps])))
        return found[tap], [found[each] for each in taps]

    trunk = Trunk(depth=sum(each.startswith("block:") for each in facts.widths), read=read)
    # equal weights compute other features in another architecture, or from pixels normalised in another way
    how = f"{facts.name} {facts.precision} {facts.image_px} {tap} {facts.mean} {facts.std}"
    return Subject(
        name=name,
        size_px=facts.image_px,
        pool=trunk.pool,
        trunk=trunk,
        sha256=facts.sha256,
        identity=f"teacher {facts.sha256} {how}",
    )


def last_tap(widths: Mapping[str, int]) -> str:
    """The end of a teacher: the joint space, the final norm, or the last block."""
    blocks = [tap for tap in widths if tap.startswith("block:")]
    last = max(blocks, key=lambda tap: int(tap.removeprefix("block:")), default="post_norm")
    return next(tap for tap in ("projected", "post_norm", last) if tap in widths)


def pixel_subject(size_px: int) -> Subject:
    """The pixels of a crop as they are: what any representation has to beat.

    Raises:
        ConfigError: No crop has this side.
    """
    if size_px < 1:
        raise ConfigError(f"The side of a crop cannot be {size_px} pixels.")
    return Subject(name="pixels", size_px=size_px, pool=_flatten_pixels)


def _flatten_pixels(crops: Tensor) -> Pooled:
    return {"pixels": crops.flatten(1).to(torch.float32)}
