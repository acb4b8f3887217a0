"""How large the student of an official checkpoint is, read from its shapes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from caev2.errors import CheckpointError
from caev2.pretrain.student.sizes import SIZES, ModelSettings


def infer_settings(
    state: Mapping[str, Tensor], *, heads: int | None = None, regressor_heads: int | None = None
) -> ModelSettings:
    """The sizes of the student that a state dict fits, read from its shapes.

    Heads leave no trace in shapes: 12, or 16 at width 1024, where 12 heads would not fill it. Without a
    regressor in the file, it is that of the published size of the encoder's width; of another width, a regressor of
    one block, as wide as the encoder and with as many heads. One in the file has the encoder's heads there if it is as
    wide.

    Raises:
        CheckpointError: A tensor that tells a size is missing, or the width is of no published size and the heads
            were not given, of the regressor too if it is not as wide.
    """
    width, _, patch_px, _ = _shape(state, "encoder.patch_embed.proj.weight", 4)
    tokens = _shape(state, "encoder.pos_embed", 3)[1]
    start = _published_or_given(width, heads)
    sizes: dict[str, Any] = {
        "image_px": round((tokens - 1) ** 0.5) * patch_px,
        "patch_px": patch_px,
        "width": width,
        "depth": _count_blocks(state, "encoder.blocks."),
        "heads": heads or start.heads,
        "mlp_ratio": _shape(state, "encoder.blocks.0.mlp.fc1.weight", 2)[0] / width,
        "layer_scale": start.layer_scale if "encoder.blocks.0.gamma_1" in state else None,
    }
    if "mask_token" in state:
        sizes["regressor_width"] = _shape(state, "mask_token", 3)[2]
        sizes["regressor_depth"] = _count_blocks(state, "regresser.regressor_blocks.")
        sizes["regressor_heads"] = regressor_heads or _heads_of_regressor(sizes)
    elif regressor_heads is not None:
        sizes["regressor_heads"] = regressor_heads
    if "decoder.head.weight" in state:
        sizes["target_width"] = _shape(state, "decoder.head.weight", 2)[0]
    return dataclasses.replace(start, **sizes)


def published_heads(width: int) -> int | None:
    """What a width stands for where nothing is recorded; none: it is of no published size."""
    published = _published(width)
    return None if published is None else published.heads


def _published(width: int) -> ModelSettings | None:
    return next((size for size in SIZES.values() if size.width == width), None)


def _heads_of_regressor(sizes: Mapping[str, Any]) -> int:
    """Of the regressor in a file, where nobody says.

    Raises:
        CheckpointError: Nothing tells.
    """
    width = sizes["regressor_width"]
    if _published(sizes["width"]) is not None:
        return 12 if width % 12 == 0 else 16
    if width == sizes["width"]:
        return sizes["heads"]
    raise CheckpointError(
        f"The regressor is {width} wide and the encoder {sizes['width']}, which is no published size, so the "
        f"encoder's {sizes['heads']} heads do not tell the regressor's. Give them as well: `caev2 import FILE RUN "
        "--regressor-heads N`."
    )


def _published_or_given(width: int, heads: int | None) -> ModelSettings:
    """What no shape tells: of the published size of this width, or of one's own with so many heads."""
    published = _published(width)
    if published is not None:
        return published
    if heads is None:
        raise CheckpointError(
            f"An encoder of width {width} is of no published size ("
            + ", ".join(f"{name} {size.width}" for name, size in SIZES.items())
            + "). A checkpoint of other sizes can be read when the number of heads is given: `caev2 import FILE RUN "
            "--heads N`."
        )
    return ModelSettings(width=width, heads=heads, regressor_width=width, regressor_heads=heads, regressor_depth=1)


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"The key {name} is missing, so the file is cut short or of another model.")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise CheckpointError(f"{name} has shape {shape}, where {dimensions} dimensions are expected.")
    return shape


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {
        int(name.removeprefix(prefix).split(".")[0]) for name in state if re.match(re.escape(prefix) + r"\d", name)
    }
    if numbers != set(range(len(numbers))) or not numbers:
        raise CheckpointError(f"The blocks {prefix}* are {sorted(numbers)}; they must be 0, 1, 2 ... without a gap.")
    return len(numbers)
