"""Heads that make masks of frozen patch tokens: a linear one, and UperNet on tokens of four blocks."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

HeadName = Literal["linear", "upernet"]

_POOL_SIDES = (1, 2, 3, 6)  # of the pyramid pooling module (Zhao et al., 1612.01105)
_DROPOUT = 0.1  # before the classifier, as in the published configurations
AUXILIARY_WEIGHT = 0.4
"""Of the auxiliary head's loss, as published."""

Maps = Float[Tensor, "image level width row column"]
Logits = Float[Tensor, "image class fine_row fine_column"]
Auxiliary = Float[Tensor, "image class row column"]


class LinearHead(nn.Module):
    """Batch norm and one linear map of each patch: the linear evaluation of DINOv2 (2304.07193)."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, maps: Maps) -> tuple[Logits, None]:
        """Scores of the classes at every patch of the last level, and nothing auxiliary."""
        return self.classifier(self.norm(maps[:, -1])), None


class UperNetHead(nn.Module):
    """UperNet (Xiao et al., 1807.10221) on four blocks of a plain transformer.

    All levels have the resolution of the patches; a pyramid is made of them as BEiT and CAE do: four and two times as
    fine by transposed convolutions, as it is, and half as fine by a maximum. On top of the coarsest sits a pyramid
    pooling module; from there features go down the pyramid and are fused at the finest. An auxiliary head of one
    convolution looks at the third level.

    Args:
        width: Of a token.
        classes: How many there are.
        channels: Width of the head; published: that of the tokens.
    """

    def __init__(self, width: int, classes: int, channels: int):
        super().__init__()
        self.pyramid = nn.ModuleList(
            [
                nn.Sequential(_finer(width), nn.BatchNorm2d(width), nn.GELU(), _finer(width)),
                _finer(width),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        self.pooled = nn.ModuleList(_convolution(width, channels, 1) for _ in _POOL_SIDES)
        self.bottleneck = _convolution(width + len(_POOL_SIDES) * channels, channels, 3)
        self.lateral = nn.ModuleList(_convolution(width, channels, 1) for _ in range(3))
        self.smooth = nn.ModuleList(_convolution(channels, channels, 3) for _ in range(3))
        self.fuse = _convolution(4 * channels, channels, 3)
        self.classifier = nn.Sequential(nn.Dropout2d(_DROPOUT), nn.Conv2d(channels, classes, 1))
        thin = max(1, channels // 3)  # published: 256 of 768
        self.auxiliary = nn.Sequential(
            _convolution(width, thin, 3), nn.Dropout2d(_DROPOUT), nn.Conv2d(thin, classes, 1)
        )

    def forward(self, maps: Maps) -> tuple[Logits, Auxiliary | None]:
        """Scores of the classes at a quarter of a patch, and those of the auxiliary head where it is trained."""
        levels = [make(maps[:, level]) for level, make in enumerate(self.pyramid)]
        tops = [lateral(level) for lateral, level in zip(self.lateral, levels[:3], strict=True)]
        tops.append(self._pool(levels[3]))
        for finer in (2, 1, 0):
            tops[finer] = tops[finer] + _resize(tops[finer + 1], tops[finer])
        smooth = [convolve(top) for convolve, top in zip(self.smooth, tops[:3], strict=True)]
        fused = torch.cat([smooth[0], *(_resize(top, smooth[0]) for top in (*smooth[1:], tops[3]))], dim=1)
        return self.classifier(self.fuse(fused)), self.auxiliary(levels[2]) if self.training else None

    def _pool(self, coarsest: Float[Tensor, "image width row column"]) -> Float[Tensor, "image channel row column"]:
        pooled = [
            _resize(convolve(adaptive_avg_pool2d(coarsest, side)), coarsest)
            for side, convolve in zip(_POOL_SIDES, self.pooled, strict=True)
        ]
        return self.bottleneck(torch.cat([coarsest, *pooled], dim=1))


def _finer(width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def _convolution(inputs: int, outputs: int, side: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _resize(maps: Tensor, like: Tensor) -> Tensor:
    return interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


def build_head(name: HeadName, *, width: int, classes: int, channels: int | None, seed: int) -> nn.Module:
    """A head with fresh weights that are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "linear":
            return LinearHead(width, classes)
        return UperNetHead(width, classes, channels or width)


def blocks_read(name: HeadName, depth: int) -> tuple[int, ...]:
    """Which blocks a head looks at, counted from 1; none: the tokens after the final norm.

    For UperNet a third, half, two thirds and all of the depth: of 12 blocks 4, 6, 8 and 12, of 24 blocks 8, 12, 16 and
    24, as published.
    """
    if name == "linear":
        return ()
    return tuple(max(1, round(depth * share)) for share in (1 / 3, 1 / 2, 2 / 3, 1))
