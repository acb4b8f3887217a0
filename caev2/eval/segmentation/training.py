"""Training a head on frozen patch tokens, and the confusions of what it says."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from caev2.errors import ConfigError
from caev2.eval.segmentation.confusion import IGNORED, count_confusions
from caev2.eval.segmentation.heads import AUXILIARY_WEIGHT, HeadName, build_head
from caev2.eval.segmentation.tokens import MaskedTokens
from caev2.progress import Progress
from caev2.store.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSettings:
    """How a head is made and trained; the encoder stays frozen and images are not augmented.

    Published for UperNet, there with the encoder fine-tuned: AdamW at 1e-4 to 3e-4, weight decay 0.05, warm-up for
    1,500 of 160,000 steps of 16 images, linear decay to zero. Of DINOv2's linear evaluation: AdamW at 1e-3, 40,000
    steps of 16. Here the steps are counted in epochs, for data sets are small.
    """

    head: HeadName = "linear"
    epochs: int = 20
    batch_size: int = 16
    """Images; of fewer images than two batches, half."""
    lr: float = 1e-3
    """At its highest."""
    weight_decay: float = 1e-4
    warmup_share: float = 0.05
    """Of all steps, rising linearly from 0; then a linear decay to 0."""
    channels: int | None = None
    """Width of UperNet; none: that of the tokens, as published."""
    token_limit_bytes: int = 8_000_000_000
    """How much memory the tokens of all images of one part may take."""

    def __post_init__(self):
        channels = 1 if self.channels is None else self.channels
        if self.epochs < 1 or self.batch_size < 2 or not self.lr > 0 or channels < 1:
            raise ConfigError(
                f"A head cannot be trained for {self.epochs} epochs in batches of {self.batch_size} at the learning "
                f"rate {self.lr} with {self.channels} channels. Give at least 1 epoch, batches of 2 or more, and "
                "numbers above 0."
            )


def train_head(
    tokens: MaskedTokens,
    *,
    classes: int,
    settings: SegmentationSettings,
    seed: int,
    device: str,
    progress: Progress,
) -> nn.Module:
    """A head trained on tokens; weights and batches follow the seed."""
    images, width = len(tokens.maps), tokens.maps.shape[2]
    head = build_head(settings.head, width=width, classes=classes, channels=settings.channels, seed=seed).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    batch = min(settings.batch_size, max(2, images // 2))
    steps, done = settings.epochs * (images // batch), 0
    progress.start(f"{settings.head} head", steps)
    with torch.random.fork_rng(devices=[] if device == "cpu" else [torch.device(device)]):
        torch.manual_seed(seed)  # dropout
        for epoch in range(settings.epochs):
            order = torch.from_numpy(Draws(seed, "segmentation", epoch).permutation(images))
            for members in order[: images // batch * batch].split(batch):
                optimizer.param_groups[0]["lr"] = settings.lr * _lr_share(done / steps, settings.warmup_share)
                loss = _loss(head, tokens, members, device)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
                progress.advance(1, loss=float(loss.detach()))
    progress.finish()
    return head.eval()


def _lr_share(done: float, warmup: float) -> float:
    return done / warmup if done < warmup else (1 - done) / (1 - warmup)


def _loss(head: nn.Module, tokens: MaskedTokens, members: Tensor, device: str) -> Tensor:
    """Cross-entropy at the resolution of the masks, over the pixels that count."""
    labels = tokens.labels[members].long().to(device)
    scores, auxiliary = head(tokens.maps[members].float().to(device))
    loss = _pixel_loss(scores, labels)
    return loss if auxiliary is None else loss + AUXILIARY_WEIGHT * _pixel_loss(auxiliary, labels)


def _pixel_loss(scores: Tensor, labels: Tensor) -> Tensor:
    total = cross_entropy(_to_pixels(scores, labels), labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)  # torch's mean over no pixel would be NaN


def _to_pixels(scores: Tensor, labels: Tensor) -> Tensor:
    return interpolate(scores, size=labels.shape[1:], mode="bilinear", align_corners=False)


@torch.inference_mode()
def judge_head(
    head: nn.Module, tokens: MaskedTokens, *, classes: int, batch_size: int, device: str
) -> Int64[Tensor, "image class predicted"]:
    """The confusions of each image."""
    counts = []
    for members in torch.arange(len(tokens.maps)).split(batch_size):
        labels = tokens.labels[members].long().to(device)
        scores, _ = head(tokens.maps[members].float().to(device))
        counts.append(count_confusions(labels, _to_pixels(scores, labels).argmax(dim=1), classes))
    return torch.cat(counts)


def count_classes(*parts: MaskedTokens) -> int:
    """One more than the largest label of a pixel that counts."""
    return 1 + max(int(torch.where(part.labels == IGNORED, 0, part.labels).max()) for part in parts)
