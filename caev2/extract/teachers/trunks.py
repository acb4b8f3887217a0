"""timm's vision transformers, read token by token: what `timm:` teachers and open_clip's timm towers share.

A trunk is a stack of equal blocks over one square grid of patches. Registers and distillation tokens take part in its
attention and are not stored. The class row is the class token where the trunk keeps one for its final norm; a trunk
that pools in another way has the row it pools: `map`, the query of its attention pooling, or `mean`, the mean of its
patches. Inside the trunk, at `block:i`, nothing is pooled yet: there it is the class token, or without one the mean.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from caev2.errors import ConfigError, TeacherError
from caev2.extract.teachers.teacher import ClassRow, Outline, TeacherDescription, check_images, check_taps, normalise
from caev2.extract.teachers.weights import TowerFile

MODULES = (
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "deit",
    "eva",
    "beit",
    "vitamin",
)
"""timm's modules whose models are such stacks."""
_WHY_NOT = {
    "naflexvit": "takes patches of any number and shape instead of one grid",
    "vision_transformer_sam": "attends in windows and hands on a picture, not a sequence of tokens",
    "cait": "adds its class token after the last block over patches",
    "crossvit": "has two grids of patches at once",
    "tnt": "has a grid inside of every patch",
    "convnext": "is a convolutional network, whose grid changes from stage to stage",
    "fastvit": "is convolutional but for its last stage, and its grid changes from stage to stage",
    "swin_transformer": "merges its patches from stage to stage",
    "resnet": "is a convolutional network, whose grid changes from stage to stage",
}
_POSITIONS, _TABLE = "pos_embed", "relative_position_bias_table"
# tables that follow from the sizes alone; some files keep them, some do not
_COMPUTED = (
    "relative_position_index",
    "relative_coords_log",
    "rel_coords_log",
    "num_batches_tracked",
    "rope.freqs_cos",
    "rope.freqs_sin",
    "rope.pos_embed",
)
_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TrunkTeacher:
    """A frozen trunk and, where it has one, the projection behind it; see `caev2.extract.teachers.teacher.Teacher`."""

    def __init__(self, trunk: Any, description: TeacherDescription, device: str, project: nn.Module | None = None):
        self.description = description
        self._trunk = trunk.eval().requires_grad_(False).to(device)
        self._project = None if project is None else project.eval().requires_grad_(False).to(device)
        self._class_row = class_row_of(trunk)

    @property
    def trunk(self) -> Any:
        """The modules of timm and their weights, for whoever trains a copy of them."""
        return self._trunk

    @torch.no_grad()
    def tokens(
        self, images: UInt8[Tensor, "image size size 3"], taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        """The latents of all tokens at each tap; see `caev2.extract.teachers.teacher.Teacher.tokens`."""
        check_images(images, self.description.image_px)
        check_taps(taps, self.description.widths)
        pixels = normalise(images, self.description.mean, self.description.std)
        lower = _AUTOCAST.get(self.description.precision)  # autocast leaves norms and residuals in fp32
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.autocast(pixels.device.type, dtype=lower, enabled=lower is not None), exact:
            return self._forward(pixels, frozenset(taps))

    def _forward(
        self, pixels: Float[Tensor, "image 3 size size"], taps: frozenset[str]
    ) -> dict[str, Float[Tensor, "image token width"]]:
        trunk = self._trunk
        numbers = sorted(int(tap.removeprefix("block:")) for tap in taps if tap.startswith("block:"))
        ends_early = len(numbers) == len(taps)
        found = trunk.forward_intermediates(
            pixels,
            indices=[number - 1 for number in numbers] or [len(trunk.blocks) - 1],
            return_prefix_tokens=trunk.num_prefix_tokens > 0,  # some of timm's fail where there are none
            output_fmt="NLC",
            stop_early=ends_early,
            intermediates_only=ends_early,
        )
        blocks = found if ends_early else found[1]
        latents = {f"block:{number}": _row_of_block(trunk, at) for number, at in zip(numbers, blocks, strict=False)}
        if not ends_early:
            latents["post_norm"] = self._row_after_norm(found[0])
        if "projected" in taps and self._project is not None:
            latents["projected"] = self._project(latents["post_norm"])
        return {tap: latents[tap] for tap in latents if tap in taps}

    def _row_after_norm(self, tokens: Float[Tensor, "image all width"]) -> Float[Tensor, "image token width"]:
        trunk = self._trunk
        patches = tokens[:, trunk.num_prefix_tokens :]
        if _norms_after_pooling(trunk):
            patches = trunk.fc_norm(patches)
        if self._class_row == "token":
            return torch.cat([tokens[:, :1], patches], dim=1)
        return torch.cat([trunk.forward_head(tokens, pre_logits=True)[:, None], patches], dim=1)


def _row_of_block(trunk: Any, found: Any) -> Float[Tensor, "image token width"]:
    """What timm gives is patches, and the tokens before them only where there are any."""
    patches, before = found if isinstance(found, tuple) else (found, None)
    if before is not None and trunk.cls_token is not None:
        return torch.cat([before[:, :1], patches], dim=1)
    return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


def _norms_after_pooling(trunk: Any) -> bool:
    return isinstance(trunk.norm, nn.Identity) and not isinstance(trunk.fc_norm, nn.Identity)


def class_row_of(trunk: Any) -> ClassRow:
    """How the class row is made at `post_norm` and `projected`.

    A class token whose trunk averages its patches before the final norm is never normed by it: such a trunk's row is
    the mean. That timm averages for its classifier where the norm is of every token, as for DINOv3, decides nothing.
    """
    if getattr(trunk, "attn_pool", None) is not None:
        return "map"
    return "mean" if trunk.cls_token is None or _norms_after_pooling(trunk) else "token"


@functools.cache
def known_trunks() -> tuple[str, ...]:
    """Names of all of timm's models that can be read."""
    return tuple(sorted(name for module in MODULES for name in timm.list_models(module=module)))


def refuse_other_networks(timm_name: str, name: str) -> None:
    """Refuse a timm model that is no stack of equal blocks over one grid of patches, naming why.

    Raises:
        TeacherError: It is none.
    """
    if timm_name in known_trunks():
        return
    family = timm.models.model_entrypoint(timm_name).__module__.rpartition(".")[2]
    why = _WHY_NOT.get(family, "is not one stack of equal blocks over one grid of patches")
    raise TeacherError(
        f"{name} cannot be a teacher: timm's {timm_name}, of the family {family}, {why}. Choose a vision transformer, "
        "such as openclip:ViT-B-16-quickgelu or timm:vit_base_patch14_dinov2."
    )


def outline_trunk(
    trunk: Any,
    *,
    name: str,
    image_px: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    projected: int | None = None,
) -> Outline:
    """What a trunk is, its weights left aside.

    Args:
        trunk: The modules, on any device.
        name: For the message.
        image_px: What it is built for.
        mean: Subtracted from pixels.
        std: Divides them.
        projected: Width of the projection behind it, if there is one.

    Raises:
        ConfigError: Its patches do not tile a square image of that size.
    """
    rows, columns = trunk.patch_embed.grid_size
    patch_px = _patch_px(trunk, image_px)
    if rows != columns or not rows or patch_px * rows != image_px:
        raise ConfigError(_say_size(name, image_px, patch_px))
    blocks = {f"block:{number}": trunk.embed_dim for number in range(1, len(trunk.blocks) + 1)}
    has_norm = not (isinstance(trunk.norm, nn.Identity) and isinstance(trunk.fc_norm, nn.Identity))
    widths = {"post_norm": trunk.embed_dim, **blocks} if has_norm else blocks
    if projected is not None and class_row_of(trunk) != "map":
        widths = {"projected": projected, **widths}
    return Outline(
        image_px=image_px, patch_px=patch_px, mean=mean, std=std, widths=widths, class_row=class_row_of(trunk)
    )


def whole_px(trunk: Any, image_px: int) -> int:
    """The pixels a side that patches cover: SigLIP's 384 by patches of 14 leave six at the edge unseen."""
    return trunk.patch_embed.grid_size[0] * _patch_px(trunk, image_px)


def _patch_px(trunk: Any, image_px: int) -> int:
    embed = trunk.patch_embed
    if hasattr(embed, "backbone"):  # its own patches are of a convolutional stem's grid, not of pixels
        return max(1, image_px // max(1, embed.grid_size[0]))
    return embed.patch_size[0]


def _say_size(name: str, image_px: int, patch_px: int) -> str:
    return (
        f"{name} cuts images into patches of {patch_px} pixels, so its image size cannot be {image_px}. "
        f"Give a multiple of {patch_px}, such as {patch_px * 14}."
    )


def build_for_size(build: Callable[[], nn.Module], name: str, image_px: int) -> Any:
    """Make the modules, with timm's own refusals of a size as ours.

    Raises:
        ConfigError: The size is none that this trunk can take.
    """
    try:
        return build()
    except (TypeError, AssertionError, ValueError, AttributeError) as problem:
        reason = str(problem).strip() or "its size is fixed"
        raise ConfigError(f"{name} cannot take crops of {image_px} pixels: {reason}") from None


def load_trunk(model: Any, file: TowerFile, *, name: str, inside: str = "") -> None:
    """Put a file's weights into a model that contains a trunk; positions are resized as timm does it.

    Args:
        model: The trunk, or what contains it.
        file: The weights; names and shapes must be the model's, but for the number of positions.
        name: Of the teacher, for the message.
        inside: What the names of the trunk's tensors begin with.

    Raises:
        TeacherError: The file holds another architecture, or numbers that are none.
        ConfigError: The trunk has positions that cannot be resized to its grid.
    """
    trunk = model.get_submodule(inside.rstrip("."))
    state, weights = weights_alone(model.state_dict()), weights_alone(file.weights)
    for key in sorted(state.keys() | weights.keys()):
        _refuse_other_shape(key, state, weights, file, name)
        if not bool(torch.isfinite(weights[key]).all()):
            raise TeacherError(f"{file.path} holds infinite or undefined numbers in {key}. Fetch it again.")
    fitted = {key: _fit(key, value.float(), state[key], trunk, name) for key, value in weights.items()}
    model.load_state_dict(fitted, strict=False)  # what is missing was computed from the sizes


def weights_alone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the tables that follow from sizes."""
    return {key: value for key, value in state.items() if not key.endswith(_COMPUTED)}


def _refuse_other_shape(
    key: str, state: Mapping[str, Tensor], weights: Mapping[str, Tensor], file: TowerFile, name: str
) -> None:
    wanted, found = (tuple(of[key].shape) if key in of else None for of in (state, weights))
    if wanted and found and key.endswith((_POSITIONS, _TABLE)):
        same = len(wanted) == len(found) and wanted[-1] == found[-1]  # the number of positions may differ
    else:
        same = wanted == found
    if not same:
        raise TeacherError(
            f"{file.path} is no {name}: for {key} the architecture has {wanted or 'nothing'}, "
            f"the file {found or 'nothing'}. Name the architecture that the file was written for."
        )


def _fit(key: str, value: Tensor, like: Tensor, trunk: Any, name: str) -> Tensor:
    if value.shape == like.shape:
        return value
    if key.endswith(_TABLE):
        # timm's resizing of these indexes in a way that torch has announced to change: wrong latents without a word
        raise ConfigError(
            f"{name} has relative positions that were learned for one grid, and they are not resized. Leave its image "
            "size alone, or choose an architecture made for the size: `caev2 teachers NAME` tells."
        )
    prefix = like.shape[1] - trunk.patch_embed.num_patches  # of the class token and registers, where they have any
    return resample_abs_pos_embed(value, list(trunk.patch_embed.grid_size), num_prefix_tokens=prefix)
