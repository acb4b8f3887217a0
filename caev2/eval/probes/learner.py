"""The head of the `official` linear probe in training: its settings, its steps, what it was worth after each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.probes.lars import lars_of, lr_share, make_head, take_step
from caev2.pretrain.weights.tensor_file import DAMAGED, read_tensors, write_tensors

_KIND = "caev2-official-linear-1"
_THIN_WIDTH, _THIN_BATCH, _BATCH = 192, 16_384, 8_192  # published: tiny, and small and base
_STEPS_AN_EPOCH = 64  # at least, of a batch that was not asked for; published: 78 and 156
_SMALLEST_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialSettings:
    """How the head is trained; the defaults are the published ones."""

    epochs: int = 90
    batch_size: int | None = None
    """Images; none: as published for the width of the features, or less where train images are few."""
    base_lr: float = 0.1
    """For every 256 images of a batch."""

    def __post_init__(self):
        batch = 2 if self.batch_size is None else self.batch_size
        if self.epochs < 1 or batch < 2 or not self.base_lr > 0:
            raise ConfigError(
                f"An official linear probe cannot be trained for {self.epochs} epochs in batches of {self.batch_size} "
                f"at a learning rate of {self.base_lr}. Give at least 1 epoch, batches of 2 or more, a rate above 0."
            )

    @property
    def warmup_epochs(self) -> float:
        """Ten of ninety; of fewer epochs the same share."""
        return min(10.0, self.epochs / 9)

    def batch_of(self, images: int, width: int) -> int:
        """How many images a batch has.

        Raises:
            ConfigError: More than there are.
        """
        if self.batch_size is None:
            whole = 2 ** (images // _STEPS_AN_EPOCH).bit_length() // 2  # a power of two
            most = max(_SMALLEST_BATCH, whole)
            return min(published_batch(width), most, images)
        if self.batch_size > images:
            raise ConfigError(
                f"A batch cannot have {self.batch_size:,} of {images:,} train images. Give --batch-size {images} or "
                "less, or leave it away."
            )
        return self.batch_size


def published_batch(width: int) -> int:
    """The batch that was published for an encoder of this width."""
    return _THIN_BATCH if width <= _THIN_WIDTH else _BATCH


class Learner:
    """A head in training, and what it was worth after each epoch.

    Args:
        test: What it is judged on.
        test_labels: The same images' classes.
        classes: How many there are.
        settings: How it is trained.
        images: How many it is trained on.
        seed: Of its first weights.
        device: Where it is trained.

    Raises:
        ConfigError: A batch has more images than there are.
    """

    def __init__(
        self,
        test: Float[Tensor, "test width"],
        test_labels: Int[Tensor, " test"],
        classes: int,
        settings: OfficialSettings,
        images: int,
        seed: int,
        device: str,
    ):
        self.settings, self.images, self.width = settings, images, test.shape[1]
        self.batch = settings.batch_of(images, self.width)
        self.lr = settings.base_lr * self.batch / 256
        self.head = make_head(self.width, classes, seed).to(device)
        self.optimizer = lars_of(self.head)
        self._test, self._test_labels, self._device = test.to(device), test_labels.to(device), device
        self._losses: list[Tensor] = []
        self._epochs: list[dict[str, float]] = []

    def say_batch(self, name: str) -> str:
        """What the batch is, beside what was published."""
        steps, published = self.images // self.batch, published_batch(self.width)
        why = "" if self.batch == published else f"; published are batches of {published:,} out of 1.28 million images"
        return (
            f"Official linear probe of {name}: {self.settings.epochs} epochs of {steps:,} steps, batches of "
            f"{self.batch:,} out of {self.images:,} images, learning rate {self.lr:g}{why}."
        )

    def step(self, features: Float[Tensor, "image width"], labels: Int[Tensor, " image"], epoch: float) -> None:
        """Learn from a batch at a moment counted in epochs."""
        share = lr_share(epoch, epochs=self.settings.epochs, warmup_epochs=self.settings.warmup_epochs)
        self.head.train()
        batch = features.to(self._device), labels.to(self._device)
        self._losses.append(take_step(self.head, self.optimizer, *batch, lr=self.lr * share))

    def end_epoch(self) -> None:
        """Judge the head.

        Raises:
            CheckpointError: It learnt from features that are not finite, or diverged: nothing it says means anything.
        """
        loss = torch.stack(self._losses).double().mean()
        if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(self._scores()).all()):
            raise CheckpointError(
                f"The head of the official linear probe is not finite after epoch {len(self._epochs) + 1}: either the "
                "encoder's features of some crop are not, or --base-lr is too high."
            )
        right = (self.predict() == self._test_labels).double().mean()
        self._epochs.append({"accuracy": float(right), "train_loss": float(loss)})
        self._losses.clear()

    def figures(self) -> dict[str, float | int]:
        """Of the last epoch, for people who wait."""
        return {"epoch": len(self._epochs), "loss": self._epochs[-1]["train_loss"]}

    def predict(self) -> Int[Tensor, " test"]:
        """The classes of the test images, by running statistics."""
        return self._scores().argmax(dim=1)

    @torch.inference_mode()
    def _scores(self) -> Float[Tensor, "test class"]:
        return self.head.eval()(self._test)

    def facts(self) -> dict[str, Any]:
        """How it was trained, and what it was worth meanwhile."""
        by_epoch = [each["accuracy"] for each in self._epochs]
        highest = max(by_epoch)
        return {
            "epochs": self.settings.epochs,
            "warmup_epochs": self.settings.warmup_epochs,
            "batch_size": self.batch,
            "published_batch_size": published_batch(self.width),
            "steps": self.settings.epochs * (self.images // self.batch),
            "lr": self.lr,
            "final_loss": self._epochs[-1]["train_loss"],
            "accuracy_by_epoch": by_epoch,
            "highest": {
                "accuracy": highest,
                "epoch": 1 + by_epoch.index(highest),
                "note": "chosen on the reported split: not comparable with the last epoch's",
            },
        }

    def save(self, path: Path) -> None:
        """Write head, momentum and history.

        Raises:
            OutputError: It cannot be written.
        """
        buffers = {f"momentum/{number}": buffer for number, buffer in enumerate(self._momenta())}
        head = {f"head/{name}": tensor for name, tensor in self.head.state_dict().items()}
        write_tensors(path, head | buffers, {"format": _KIND, "epochs": self._epochs})

    def take_up(self, path: Path) -> int:
        """Go on from a file, if there is a sound one; how many epochs are done."""
        try:
            tensors, facts = read_tensors(path, _KIND)
        except (OSError, *DAMAGED):
            return 0
        head = {name.removeprefix("head/"): tensor for name, tensor in tensors.items() if name.startswith("head/")}
        self.head.load_state_dict(head)
        for number, parameter in enumerate(self._parameters()):
            buffer = tensors[f"momentum/{number}"].to(self._device)
            self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self._epochs = list(facts["epochs"])
        return len(self._epochs)

    def _parameters(self) -> Sequence[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _momenta(self) -> Sequence[Tensor]:
        return [self.optimizer.state[parameter]["momentum_buffer"] for parameter in self._parameters()]
