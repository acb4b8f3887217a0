"""The two forms that the built-in grids have: for 224 pixels and a study of one's own, and for the built-in study."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caev2.ablate.making import StoreMaking
from caev2.pretrain.student.sizes import SIZES


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the full and the quick form of the grids differ in."""

    recipe: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    sizes: Mapping[str, Mapping[str, Any]]
    """Sizes of the student by name, the recipe's own first."""
    masked: tuple[int, ...]
    """Mask counts, the recipe's own among them."""
    recipe_masked: int
    last_block: str
    """Target of the teacher's last block."""
    student_jitter: float
    """As strong as the jitter of the store's views."""
    stores: Mapping[str, StoreMaking]
    quick: bool


CODECS = ("int8", "lloyd4", "klt", "pq")
_TAPS = 'taps=["projected", "post_norm", "block:12"]'
_EXTRACTED = ("--recipe", "base-300e", "--views", "16", "--codec", "float16", "--crops", "jpeg")
"""Crops are kept, for many runs read them, and 96 cores decode whole images more slowly than eight GPUs train small."""


def _sized(name: str) -> dict[str, Any]:
    size = SIZES[name]
    fields = ("width", "regressor_width", "regressor_depth")
    return {f"model.{field}": getattr(size, field) for field in fields}


def _encoded(codec: str) -> StoreMaking:
    """Only the target that the grid learns from, whatever the codec loses of it: that is the grid's question."""
    return StoreMaking(convert=codec, targets=("projected",), any_quality=True)


FULL = Form(
    recipe="base-100e",
    settings={},
    seeds=(0, 1, 2),
    sizes={"base": {}, "small": _sized("small"), "tiny": _sized("tiny")},
    masked=(30, 49, 98, 147),
    recipe_masked=98,
    last_block="block-12",
    student_jitter=0.4,
    stores={
        "views": StoreMaking(extract=(*_EXTRACTED, "--set", _TAPS)),
        "no-jitter": StoreMaking(extract=(*_EXTRACTED, "--set", "views.jitter=0")),
        **{f"views-{codec}": _encoded(codec) for codec in CODECS},
    },
    quick=False,
)

QUICK = Form(
    recipe="study",
    settings={},
    seeds=(0, 1, 2, 3),
    sizes={"64 wide": {}, "128 wide": {"model.width": 128, "model.regressor_width": 128}},
    masked=(16, 32, 48),
    recipe_masked=16,
    last_block="block-4",
    student_jitter=0.3,
    stores={name: StoreMaking(built_in=True) for name in ("views", "no-jitter", *(f"views-{one}" for one in CODECS))},
    quick=True,
)
