"""What a student costs: multiply-adds and memory as arithmetic, and what devices can do at most.

Counted are the products of matrices: patch embedding, linear layers, and the two products of attention (queries with
keys, weights with values). Not counted are norms, activations, softmax, additions, loss and optimiser, which are a
percent or two of it. The patch embedding is counted for all patches, since all are embedded before the masked ones
are left out. That gives the published sizes 1.06 (tiny), 3.58 (small), 12.1 (base) and 36.6 (large) billion
multiply-adds for an image. A multiply-add is two operations, and a training step is three forward passes: one, and
twice as much for the gradients of inputs and weights.

No torch here, so that costs can be listed without it.
"""

import re
from dataclasses import dataclass

from caev2.pretrain.student.sizes import ModelSettings

FLOPS_PER_MULTIPLY_ADD = 2
FORWARDS_PER_STEP = 3
"""A step costs as much as so many forward passes."""
MODEL_BYTES_PER_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, each of 4 bytes."""
CAST_BYTES_PER_PARAMETER = 2
"""What bf16 adds: autocast keeps a copy of every weight until the step is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds of one image's forward pass."""

    encoder: int
    """Patch embedding included."""
    projection: int
    regressor: int
    head: int

    @property
    def total(self) -> int:
        """Of all parts."""
        return self.encoder + self.projection + self.regressor + self.head

    @property
    def flops_per_step(self) -> int:
        """Operations of a training step, for each of its images."""
        return FLOPS_PER_MULTIPLY_ADD * FORWARDS_PER_STEP * self.total


def count_multiply_adds(model: ModelSettings, masked: int) -> MultiplyAdds:
    """Multiply-adds of one image's forward pass.

    Args:
        model: Sizes of the student.
        masked: How many of its patches are masked.
    """
    width, seen, narrow = model.width, 1 + model.patches - masked, model.regressor_width
    embedding = model.patches * 3 * model.patch_px**2 * width
    linear = 4 * width**2 + 2 * width * int(width * model.mlp_ratio)  # qkv and proj; the MLP's two
    block = seen * linear + 2 * seen**2 * width
    crossing = 2 * masked * narrow**2 + 2 * model.patches * narrow**2 + 2 * masked * model.patches * narrow
    regressor_block = crossing + 2 * masked * narrow * int(narrow * model.mlp_ratio)
    return MultiplyAdds(
        encoder=embedding + model.depth * block,
        projection=seen * width * narrow if width != narrow else 0,
        regressor=model.regressor_depth * regressor_block,
        head=_predicted(model, masked) * narrow * model.target_width,
    )


def _predicted(model: ModelSettings, masked: int) -> int:
    """Tokens that go through the head: without a regressor, those that are seen."""
    return 1 + model.patches - (masked if model.regressor_depth == 0 else 0)


def count_parameters(model: ModelSettings) -> int:
    """Numbers that are trained; the constant zeros in the encoder's `qkv.bias` are among them."""
    width, narrow = model.width, model.regressor_width
    hidden, narrow_hidden = int(width * model.mlp_ratio), int(narrow * model.mlp_ratio)
    embedding = 3 * model.patch_px**2 * width + 2 * width  # with its bias and the class token
    scales = 2 * width if model.layer_scale is not None else 0
    block = 4 * width**2 + 2 * width * hidden + 9 * width + hidden + scales
    narrow_scales = 2 * narrow if model.regressor_layer_scale is not None else 0
    crossing = 4 * narrow**2 + 2 * narrow * narrow_hidden + 12 * narrow + narrow_hidden + narrow_scales
    return (
        embedding
        + model.depth * block
        + 2 * width  # the last norm
        + ((width + 3) * narrow if width != narrow else 0)
        + (narrow if model.regressor_depth else 0)  # the mask token
        + model.regressor_depth * crossing
        + 2 * narrow
        + (narrow + 1) * model.target_width
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Estimated memory of training."""

    model_bytes: int
    """Weights, gradients, AdamW's moments; does not depend on the batch."""
    activation_bytes_per_image: int
    """What is kept from the forward for the backward pass, and the batch itself."""

    def of_batch(self, images: int) -> int:
        """All of it for so many images at once."""
        return self.model_bytes + images * self.activation_bytes_per_image


def estimate_memory(
    model: ModelSettings, masked: int, precision: str, *, recompute: bool = False, averaged: bool = False
) -> TrainingMemory:
    """Memory that training takes at its peak, by counting what the backward pass needs.

    Counted is what torch keeps when each operation runs by itself and attention is fused: inputs of norms, linear
    layers, activations and layer scales, and queries, keys and values. A block of the encoder keeps 18 × width numbers
    for each token (two MLP activations of 4, qkv 3, seven times 1), 16 without layer scales. Under bf16 all but the
    residual stream has 2 bytes. Workspaces, the framework itself (0.3 to 1 GB) and what the
    allocator holds between tensors come on top, the last up to half as much again on a CPU; compilation keeps less.

    Args:
        model: Sizes of the student.
        masked: How many of its patches are masked.
        precision: `bf16` or `fp32`.
        recompute: Blocks keep their inputs only, and one block at a time the rest.
        averaged: A moving average of the weights is kept beside them.
    """
    cast = CAST_BYTES_PER_PARAMETER if precision == "bf16" else 0
    return TrainingMemory(
        model_bytes=count_parameters(model) * (MODEL_BYTES_PER_PARAMETER + cast + (4 if averaged else 0)),
        activation_bytes_per_image=_activation_bytes(model, masked, 2 if precision == "bf16" else 4, recompute),
    )


def _activation_bytes(model: ModelSettings, masked: int, size: int, recompute: bool) -> int:
    """Of one image; `size` bytes have numbers that products of matrices are computed with, the others have 4."""
    width, narrow, patches = model.width, model.regressor_width, model.patches
    seen, predicted = 1 + patches - masked, _predicted(model, masked)
    block, crossing = _block_bytes(model, seen, size), _crossing_bytes(model, masked, size)
    if recompute:
        blocks = 4 * (model.depth * seen * width + model.regressor_depth * masked * narrow) + max(block, crossing)
    else:
        blocks = model.depth * block + model.regressor_depth * crossing
    ends = seen * width * (2 * 4 + size) + predicted * narrow * (4 + size)  # the last norm; the head's
    projection = seen * narrow * 2 * 4 if width != narrow else 0
    pixels = 3 * model.image_px**2 * (1 + 4 + (size if size < 4 else 0))  # as bytes, normalised, cast
    latents = predicted * model.target_width * (3 * 4 + size)  # decoded, ordered, in float32; predicted
    return int(blocks + ends + projection + pixels + latents)


def _block_bytes(model: ModelSettings, seen: int, size: int) -> float:
    """Inputs of two norms; what comes of them, qkv, attended, the MLP's, and what layer scales take."""
    scaled = 2 if model.layer_scale is not None else 0
    return seen * model.width * (2 * 4 + (6 + 2 * model.mlp_ratio + scaled) * size)


def _crossing_bytes(model: ModelSettings, masked: int, size: int) -> float:
    """Inputs of the norms of keys and values, what comes of them, keys and values; then the same for queries on."""
    of_patch, of_masked = 2 * 4 + 4 * size, 3 * 4 + (5 + 2 * model.mlp_ratio) * size
    return model.regressor_width * (model.patches * of_patch + masked * of_masked)


TERA = 1e12
_PEAKS: tuple[tuple[str, float], ...] = (
    # Dense bf16 products with sums in float32, without sparsity, from the makers' data sheets; the Volta and Turing
    # cards have no bf16, so theirs are of fp16.
    # The words of a name, and tera-operations a second; the first line whose words all occur in a name counts.
    ("GB200", 2500),
    ("B200", 2250),
    ("B100", 1750),
    ("GH200", 989.4),
    ("H200 NVL", 835.5),
    ("H200", 989.4),
    ("H100 PCIe", 756),
    ("H100 NVL", 835.5),
    ("H100", 989.4),
    ("H800", 989.4),
    ("H20", 148),
    ("A100", 312),
    ("A800", 312),
    ("A40", 149.7),
    ("A30", 165),
    ("A10G", 70),
    ("A10", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("V100 PCIE", 112),
    ("V100", 125),
    ("T4", 65),
    ("RTX PRO 6000 Blackwell", 503.8),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("RTX A5000", 111.1),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 4080", 97.5),
    ("RTX 3090 Ti", 80),
    ("RTX 3090", 71.2),
    ("RTX 3080", 59.5),
    ("MI300X", 1307.4),
    ("MI250X", 383),
)
_OTHER_CARDS = {"laptop", "mobile", "max", "mig", "d", "ti", "super", "vgpu"}
"""Words that make another card, or a slice of it, of what has the same number in its name."""


def peak_flops(device_name: str) -> float | None:
    """The most operations a second that a device can do, or none if that is not known here.

    Args:
        device_name: As `torch.cuda.get_device_name` gives it: `NVIDIA H100 80GB HBM3`.
    """
    words = set(_words(device_name))
    for name, tera_flops in _PEAKS:
        wanted = set(_words(name))
        if wanted <= words:
            return None if words & _OTHER_CARDS - wanted else tera_flops * TERA
    return None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def mfu(gmac: float, images_per_s: float | int, peak: float) -> float:
    """Model FLOPs utilisation: the share of a device's peak that goes into the student's arithmetic.

    6 × multiply-adds × images a second ÷ peak: two operations each, and three forward passes a step. What a run
    computes twice, as with activation checkpointing, does not count.

    Args:
        gmac: Billion multiply-adds of one image's forward pass.
        images_per_s: Over all devices.
        peak: Operations a second of all devices together.
    """
    return 6 * gmac * 1e9 * images_per_s / peak
