"""timm's own transform cuts the pixels that caev2 is judged on."""

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from caev2.eval.crops import evaluation_crop
from caev2.eval.run import RESIZE_RATIO
from caev2.export.timm_model import TimmModel


def model_for(image_px: int, resize_px: int) -> TimmModel:
    return TimmModel(
        architecture="vit_tiny_patch16_224",
        arguments={"num_classes": 0},
        tensors={},
        image_px=image_px,
        resize_px=resize_px,
        output="tokens",
    )


def same_pixels(model: TimmModel) -> bool:
    pixels = np.random.default_rng(0).integers(0, 256, (301, 417, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.save(file, "PNG")
    config = resolve_data_config(pretrained_cfg=json.loads(json.dumps(model.data_config)))
    transform: Any = create_transform(**config)
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    found = ((transform(image) * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    wanted = evaluation_crop(file.getvalue(), model.image_px, model.resize_px)
    return np.array_equal(found, wanted)


@pytest.mark.parametrize("image_px", [32, 64, 96, 224, 256, 384])
def test_at_eight_sevenths_of_every_size(image_px):
    assert same_pixels(model_for(image_px, round(image_px * RESIZE_RATIO)))


@pytest.mark.parametrize(("image_px", "resize_px"), [(64, 64), (32, 40), (224, 224), (224, 255)])
def test_at_the_short_side_of_a_recipe(image_px, resize_px):
    assert same_pixels(model_for(image_px, resize_px))
