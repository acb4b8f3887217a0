"""The published fine-tuning model's numbers, as the tests need them."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from caev2.eval.finetuning.model import FineTuner, tunable_encoder
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.official import official_name, to_official

FOLDER = Path(__file__).parents[2] / "data" / "parity"


def published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights, or gradients, under their published names: those of a pre-training file without `encoder.`."""
    return {name.removeprefix("encoder."): tensor for name, tensor in to_official(tensors).items()}


@dataclass(frozen=True)
class Oracle:
    tensors: dict[str, Tensor]
    lr_scale: dict[str, float]
    decays: dict[str, bool]
    layer_decay: float
    sizes: ModelSettings
    classes: int
    position_bias: bool

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}

    def model(self) -> FineTuner:
        encoder = build(self.sizes, 0).encoder
        backbone = tunable_encoder(encoder, self.sizes, image_px=None, drop_path=0.0, position_bias=self.position_bias)
        model = FineTuner(backbone, self.classes, head_scale=1.0, seed=0)
        weights = self.part("weight/")
        model.load_state_dict({name: self._weight(name, weights) for name in model.state_dict()})
        return model

    def _weight(self, name: str, weights: dict[str, Tensor]) -> Tensor:
        key = official_name(name).removeprefix("encoder.")
        if not name.endswith("qkv.bias"):
            return weights[key]
        query, value = (weights[key.replace("qkv.bias", kind)] for kind in ("q_bias", "v_bias"))
        return torch.cat([query, torch.zeros_like(query), value])


def read_oracle(name: str) -> Oracle:
    with safe_open(FOLDER / f"finetune_{name}.safetensors", framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["config"])
    sizes = ModelSettings(
        image_px=config["img_size"],
        patch_px=config["patch_size"],
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        layer_scale=config["layer_scale"],
        regressor_width=config["embed_dim"],
        regressor_depth=0,
        drop_path=0.0,
    )
    return Oracle(
        tensors=tensors,
        lr_scale=json.loads(metadata["lr_scale"]),
        decays=json.loads(metadata["weight_decay_applies"]),
        layer_decay=float(metadata["layer_decay"]),
        sizes=sizes,
        classes=config["num_classes"],
        position_bias=config["relative_position_bias"],
    )
