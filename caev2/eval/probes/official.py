"""The `official` linear probe: a linear head on the frozen class token, trained with LARS on augmented images.

The published evaluation of CAE v2, which is that of MAE (He et al., 2111.06377, appendix A.1): random crops and flips,
new ones in each of 90 epochs; ten epochs of warm-up, a cosine to zero at every step; a learning rate of 0.1 for every
256 images of a batch. After each epoch the head is judged on centre crops of the other part, by the batch norm's
running statistics. The last number is the answer; the highest is chosen on the split that it is reported on, and said
to be.

Published batches are of 8,192 and 16,384 images, out of 1.28 million. Where train images are few, batches are smaller,
so that an epoch still has steps; what was taken is part of the result.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caev2.errors import OutputError
from caev2.eval.checks import check_finite, check_labels, check_several_classes
from caev2.eval.probes.augmented import Augmented
from caev2.eval.probes.learner import Learner, OfficialSettings
from caev2.store.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialProbe:
    """What the head of the last epoch says of the test images, and how it came to that."""

    predictions: Int[Tensor, " test"]
    facts: dict[str, Any]


def official_probe(
    crops: Augmented,
    labels: Int[Tensor, " train"],
    test: Float[Tensor, "test width"] | None,
    test_labels: Int[Tensor, " test"],
    *,
    classes: int,
    settings: OfficialSettings,
    checkpoint: Path | None = None,
) -> OfficialProbe | None:
    """Train the head, from where an earlier call was interrupted, and judge it; a function of its arguments.

    Args:
        crops: Features of random crops of the train images.
        labels: Of the train images, 0 .. classes-1.
        test: Features of the test images' centre crops, at the first rank; none at the others, which only help.
        test_labels: Of the test images.
        classes: How many there are.
        settings: How the head is trained.
        checkpoint: A file where every epoch is kept; none: an interrupted training begins anew.

    Raises:
        SourceError: A label is out of range, there is one class only, or an image cannot be decoded.
        CheckpointError: Features are not finite, or the head is not.
        ConfigError: A batch has more images than there are.
    """
    progress, company = crops.progress, crops.company
    learner: list[Learner] = []

    def begin() -> tuple[int, int]:
        assert test is not None, "the first rank has all features"
        check_labels(labels, classes, "train")
        check_several_classes(labels, "train")
        check_finite(test, "test")
        learner.append(Learner(test, test_labels, classes, settings, len(labels), crops.seed, crops.reading.device))
        done = 0 if checkpoint is None else learner[0].take_up(checkpoint)
        return learner[0].batch, done

    batch, done = company.first(begin)
    steps = len(labels) // batch
    if learner:
        progress.say(learner[0].say_batch(crops.subject.name))
        if checkpoint is None:
            progress.say("Its epochs are not kept, so an interruption costs all of them: --cache FOLDER keeps them.")
    progress.start(
        f"official linear probe of {crops.subject.name}", settings.epochs * steps * batch, done * steps * batch
    )
    for epoch in range(done, settings.epochs):
        order = torch.from_numpy(Draws(crops.seed, "official linear", epoch).permutation(len(labels)))
        members = order[: steps * batch].split(batch)
        for step, features in enumerate(crops.batches(epoch, [each.tolist() for each in members])):
            if features is not None:
                learner[0].step(features, labels[members[step]], epoch + step / steps)
        company.first(lambda: learner[0].end_epoch())
        if learner:
            progress.advance(0, **learner[0].figures())
            checkpoint = checkpoint and _keep(learner[0], checkpoint, crops)
    progress.finish()
    return OfficialProbe(predictions=learner[0].predict().cpu(), facts=learner[0].facts()) if learner else None


def _keep(learner: Learner, checkpoint: Path, crops: Augmented) -> Path | None:
    """Keep an epoch; a disk that is full or read-only costs the way back and not the probe."""
    try:
        learner.save(checkpoint)
    except OutputError as problem:
        crops.progress.warn(f"Epochs of the official linear probe are not kept: {problem}")
        return None
    return checkpoint
