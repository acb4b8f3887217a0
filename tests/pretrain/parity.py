"""The published implementation's numbers, as the tests need them."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.official import from_official, infer_settings

FOLDER = Path(__file__).parent.parent / "data" / "parity"
NAMES = ("projected", "same_width", "no_layer_scale")
STATISTICS = json.loads((FOLDER / "statistics.json").read_text())


@dataclass(frozen=True)
class Oracle:
    """One file: tensors by their part of the name, training settings, and the student's sizes."""

    tensors: dict[str, Tensor]
    training: dict[str, float]
    settings: ModelSettings

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def student(self) -> CAEv2:
        """A student with the file's weights, by the code that imports official checkpoints."""
        tensors, _ = from_official(self.part("weight/"), self.settings)
        model = build(self.settings, seed=0)
        model.load_state_dict(tensors)
        return model


def read_oracle(name: str) -> Oracle:
    with safe_open(FOLDER / f"caev2_{name}.safetensors", framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = json.loads(metadata.pop("config"))
    weights = {key.removeprefix("weight/"): tensors[key] for key in tensors if key.startswith("weight/")}
    settings = infer_settings(weights, heads=config["num_heads"], regressor_heads=config["decoder_num_heads"])
    # no shape tells how the layer scales of the regressor were made: with a start of 0 they are frozen
    start = config["layer_scale"] or None
    settings = dataclasses.replace(settings, regressor_layer_scale=start, drop_path=0.0)
    return Oracle(tensors, {key: float(value) for key, value in metadata.items()}, settings)


def split_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the visible and of the masked patches, row-major."""
    masked = mask.bool()
    return tuple(side.nonzero()[:, 1].view(len(mask), -1) for side in (~masked, masked))
