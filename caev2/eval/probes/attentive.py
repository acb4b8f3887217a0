"""The attentive probe: one layer of cross-attention reads the tokens of a frozen encoder.

A learnable query attends to all tokens, class token included; no MLP, no residual. What it returns goes through a
batch norm without gains into a linear head. Query, norms, attention and head are trained by SGD with Nesterov momentum,
warm-up and cosine decay. This is the protocol of CAE's attentive probing (Chen et al., 2202.03026, section 4.1), with
three differences. Images are not augmented, for tokens are computed once. The test images are judged by the batch
norm's running statistics. Batch and learning rate fit small data sets: published were 90 epochs in batches of 8,192 at
a learning rate of 0.4, which on a few thousand images would be a hundred steps; here the learning rate is chosen among
several on a held-out tenth of the train images, and never on what is reported.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from caev2.errors import ConfigError
from caev2.eval.checks import check_finite, check_labels, check_several_classes
from caev2.eval.probes.linear import hold_out
from caev2.eval.trunk import normalise_tokens
from caev2.progress import Progress, Silent
from caev2.store.draws import Draws

_INITIAL_STD = 0.02  # of the attention's matrices
_HEAD_STD = 0.01  # of the linear head, as published
_HEAD_WIDTH = 64  # of an attention head, as in every published ViT but the thin ones of CAE v2
_FINAL_LR = 1e-6  # as published


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentiveSettings:
    """How the probe is trained."""

    epochs: int = 30
    """Published: 90, with augmented images."""
    warmup_epochs: float = 3.0
    """Published: 10."""
    batch_size: int = 256
    """Images; published: 8,192. Of fewer images than two batches, half."""
    lrs: tuple[float, ...] = (0.4, 0.1, 0.025)
    """To choose from on the held-out tenth; published: 0.4. One: it is taken, and nothing is held out."""
    momentum: float = 0.9
    token_limit_bytes: int = 8_000_000_000
    """How much memory the tokens of all images may take, two bytes a number."""

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 2 or not self.lrs or not min(self.lrs) > 0:
            raise ConfigError(
                f"An attentive probe cannot be trained for {self.epochs} epochs in batches of {self.batch_size} at "
                f"learning rates {self.lrs}. Give at least 1 epoch, batches of 2 or more, and rates above 0."
            )


class AttentivePooling(nn.Module):
    """One query that attends to tokens.

    A single query needs no key or value of any token: its scores are products of tokens with `key.weight.T @ query`,
    and values are mixed before they are mapped, which is the same sum in another order. So a step costs as many
    operations as there are heads for each number of a token, and not as many as a token has numbers.

    Args:
        width: Of a token.
        heads: Of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_token = nn.Parameter(torch.zeros(width))
        self.norm_query, self.norm_key, self.norm_value = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, normalised: Float[Tensor, "image token width"]) -> Float[Tensor, "image width"]:
        """What the query finds in tokens that went through `normalise_tokens`."""
        query = self.query(self.norm_query(self.query_token)).unflatten(0, (self.heads, -1))
        key = self.key.weight.unflatten(0, (self.heads, -1))
        wanted = torch.einsum("hd,hdw->hw", query, key) * self.norm_key.weight
        # biases of key and its norm add the same to the scores of all tokens: nothing, after a softmax
        attention = (normalised @ (wanted / query.shape[1] ** 0.5).T).softmax(dim=1)
        mixed = attention.transpose(1, 2) @ normalised * self.norm_value.weight + self.norm_value.bias
        value = self.value.weight.unflatten(0, (self.heads, -1))
        return self.out(torch.einsum("ihw,hdw->ihd", mixed, value).flatten(1) + self.value.bias)


class AttentiveHead(nn.Module):
    """Pooling, batch norm without gains, linear head: from frozen tokens to the score of every class."""

    def __init__(self, width: int, classes: int, generator: torch.Generator):
        super().__init__()
        self.pooling = AttentivePooling(width, width // _HEAD_WIDTH if width % _HEAD_WIDTH == 0 else 1)
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-5)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                std = _HEAD_STD if module is self.head else _INITIAL_STD
                nn.init.normal_(module.weight, std=std, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image class"]:
        """The score of every class."""
        return self.head(self.norm(self.pooling(normalise_tokens(tokens))))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentiveProbe:
    """What the trained probe says of the test images, and how it was chosen."""

    predictions: Int[Tensor, " test"]
    lr: float
    held_out_accuracy: dict[float, float]
    """By learning rate; empty where there was nothing to choose."""
    final_loss: float
    """Mean cross-entropy over the last epoch."""


def attentive_probe(
    train: Float[Tensor, "train token width"],
    labels: Int[Tensor, " train"],
    test: Float[Tensor, "test token width"],
    *,
    classes: int,
    settings: AttentiveSettings | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AttentiveProbe:
    """Train the probe on tokens and predict; the learning rate is chosen on held-out train images.

    A function of its arguments on one kind of device: batches, weights and held-out images follow the seed.

    Args:
        train: Tokens of the train images, of any precision; they may lie on another device than the training.
        labels: 0 .. classes-1.
        test: Tokens of the test images.
        classes: How many there are.
        settings: How it is trained.
        seed: Of all that is drawn.
        device: Where to train.
        progress: Who is told.

    Raises:
        SourceError: A label is out of range, there is one class only, or nothing can be held out.
        CheckpointError: A token is not finite.
    """
    settings, progress = settings or AttentiveSettings(), progress or Silent()
    check_labels(labels, classes, "train")
    check_several_classes(labels, "train")
    for part, tokens in (("train", train), ("test", test)):
        check_finite(tokens.flatten(1), f"{part} (tokens)")  # half precision ends at 65,504
    lrs = list(settings.lrs) if len(settings.lrs) > 1 else []
    progress.start("attentive probe", settings.epochs * (len(lrs) + 1))
    held: dict[float, float] = {}
    fit, held_out = hold_out(labels, share=0.1, seed=seed) if lrs else (None, None)
    for lr in lrs:
        head, _ = _train(train, labels, fit, classes, lr, settings, seed, device, progress)
        held[lr] = float((_predict(head, train, held_out, device) == labels[held_out].cpu()).double().mean())
    best = max(held, key=held.__getitem__) if held else max(settings.lrs)
    head, loss = _train(train, labels, None, classes, best, settings, seed, device, progress)
    progress.finish()
    predictions = _predict(head, test, None, device)
    return AttentiveProbe(predictions=predictions, lr=best, held_out_accuracy=held, final_loss=loss)


def _train(
    tokens: Float[Tensor, "image token width"],
    labels: Int[Tensor, " image"],
    chosen: Int[Tensor, " chosen"] | None,
    classes: int,
    lr: float,
    settings: AttentiveSettings,
    seed: int,
    device: str,
    progress: Progress,
) -> tuple[AttentiveHead, float]:
    """A head trained on some of the images, and its mean loss over the last epoch."""
    images = torch.arange(len(labels)) if chosen is None else chosen.cpu()
    head = AttentiveHead(tokens.shape[2], classes, torch.Generator().manual_seed(seed)).to(device)
    batch = min(settings.batch_size, max(2, len(images) // 2))
    optimizer = torch.optim.SGD(head.parameters(), lr=lr, momentum=settings.momentum, nesterov=True)
    steps = len(images) // batch
    loss_sum = torch.zeros((), device=device)
    for epoch in range(settings.epochs):
        loss_sum.zero_()
        for step, members in enumerate(_batches(images, batch, seed, epoch)):
            optimizer.param_groups[0]["lr"] = lr * _lr_share(epoch + step / steps, settings, lr)
            scores = head(tokens[members].to(device))
            loss = cross_entropy(scores, labels[members].long().to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
        progress.advance(1, loss=float(loss_sum) / steps)
    return head.eval(), float(loss_sum) / steps


def _batches(images: Int[Tensor, " image"], batch: int, seed: int, epoch: int) -> Iterator[Int[Tensor, " member"]]:
    """Whole batches in the order of the epoch; what is left over waits for another order."""
    order = images[torch.from_numpy(Draws(seed, "attentive", epoch).permutation(len(images)))]
    yield from order[: len(order) // batch * batch].split(batch)


def _lr_share(epoch: float, settings: AttentiveSettings, lr: float) -> float:
    """Linear warm-up, then a cosine down to the published end."""
    warmup = min(settings.warmup_epochs, settings.epochs / 2)
    if epoch < warmup:
        return epoch / warmup
    done = (epoch - warmup) / (settings.epochs - warmup)
    least = min(1.0, _FINAL_LR / lr)
    return least + (1 - least) * (1 + math.cos(math.pi * done)) / 2


@torch.inference_mode()
def _predict(
    head: AttentiveHead, tokens: Float[Tensor, "image token width"], chosen: Tensor | None, device: str
) -> Int[Tensor, " judged"]:
    images = torch.arange(len(tokens)) if chosen is None else chosen.cpu()
    return torch.cat([head(tokens[part].to(device)).argmax(dim=1).cpu() for part in images.split(512)])
