"""Fine-tunings of our own, exported out of their folders; judged by the very model that was tuned."""

import json
from pathlib import Path

import pytest
import torch

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.finetuning.identity import TuneIdentity, claim, refuse_other
from caev2.eval.finetuning.model import FineTuner, tunable_encoder
from caev2.export.model_card import model_card
from caev2.export.run import export
from caev2.export.subject import open_exportable
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.weights.checkpoint import FORMAT
from caev2.pretrain.weights.tensor_file import write_tensors

IDENTITY = TuneIdentity(
    start={"role": "student", "digest": "1" * 64},
    recipe={"epochs": 3, "batch_size": 16, "resize_px": 40, "optimizer": {"lr": 1e-3, "layer_decay": 0.85}},
    images={},
)


def sizes_of(heads: int, layer_scale: float | None = 0.1) -> ModelSettings:
    """A width of which 12 heads were published."""
    return ModelSettings(
        image_px=16,
        patch_px=8,
        width=192,
        depth=2,
        heads=heads,
        layer_scale=layer_scale,
        regressor_width=96,
        regressor_depth=1,
        target_width=8,
    )


def write_tuned(folder: Path, sizes: ModelSettings, *, position_bias: bool, recorded: bool = True) -> FineTuner:
    """A fine-tuning at another size of image, with random numbers everywhere."""
    backbone = tunable_encoder(build(sizes, 0).encoder, sizes, image_px=32, drop_path=0.0, position_bias=position_bias)
    model, generator = FineTuner(backbone, 5, head_scale=1.0, seed=0), torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if not name.endswith("pos_embed"):
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    state = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    facts = {"format": FORMAT, "step": 9, "fingerprint": IDENTITY.fingerprint()}
    write_tensors(folder / "checkpoints" / "step-000000009.safetensors", state, facts)
    claim(folder, IDENTITY, backbone.sizes if recorded else None)
    return model.eval()


def logits_of(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("position_bias", [False, True])
@pytest.mark.parametrize("layer_scale", [0.1, None])
def test_heads_other_than_the_published_ones_are_those_that_the_folder_records(position_bias, layer_scale, tmp_path):
    model = write_tuned(tmp_path, sizes_of(3, layer_scale), position_bias=position_bias)
    exportable = open_exportable(tmp_path)
    assert (exportable.settings.heads, exportable.settings.image_px) == (3, 32)
    assert torch.equal(logits_of(exportable.reference), logits_of(model))
    assert torch.allclose(logits_of(exportable.timm.build()), logits_of(model), atol=1e-5)
    assert export(tmp_path, tmp_path / "model.safetensors", "timm").difference <= 1e-5
    assert export(tmp_path, tmp_path / "hub", "huggingface").difference <= 1e-5
    again = open_exportable(tmp_path / "hub")
    assert (again.settings, again.timm.resize_px) == (exportable.settings, 40)
    assert torch.allclose(logits_of(again.reference), logits_of(model), atol=1e-5)


def test_a_folder_that_does_not_record_its_sizes_needs_tables_or_heads(tmp_path):
    write_tuned(tmp_path / "biased", sizes_of(3), position_bias=True, recorded=False)
    assert open_exportable(tmp_path / "biased").settings.heads == 3
    model = write_tuned(tmp_path / "plain", sizes_of(3), position_bias=False, recorded=False)
    with pytest.raises(CheckpointError, match=r"Published at width 192 are 12: --heads 12"):
        open_exportable(tmp_path / "plain")
    assert torch.equal(logits_of(open_exportable(tmp_path / "plain", heads=3).reference), logits_of(model))


def test_heads_that_a_folder_records_are_not_asked_for(tmp_path):
    write_tuned(tmp_path, sizes_of(3), position_bias=False)
    with pytest.raises(ConfigError, match=r"has 3 heads\. Leave --heads away"):
        open_exportable(tmp_path, heads=12)


def test_sizes_stand_beside_the_identity(tmp_path):
    write_tuned(tmp_path, sizes_of(3), position_bias=False)
    content = json.loads((tmp_path / "finetune.json").read_text())
    assert content["fingerprint"] == IDENTITY.fingerprint()
    refuse_other(tmp_path, IDENTITY, resume=True)
    content["model"]["heads"] = 5
    (tmp_path / "finetune.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"its `model` makes no sense.*width cannot be 192"):
        open_exportable(tmp_path)


def test_weights_of_other_sizes_than_recorded_are_refused(tmp_path):
    write_tuned(tmp_path, sizes_of(3), position_bias=True)
    content = json.loads((tmp_path / "finetune.json").read_text())
    content["model"]["heads"] = 12
    (tmp_path / "finetune.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"does not take these weights|not those of a student of these sizes"):
        open_exportable(tmp_path)


def test_the_card_tells_recipe_start_and_pixels(tmp_path):
    write_tuned(tmp_path, sizes_of(3), position_bias=False)
    accuracy = {"finetune": {"value": 0.5, "low": 0.4, "high": 0.6}}
    judged = {"name": "student", "accuracy": accuracy, "protocol": {"finetune": {"steps": 9}}}
    result = {
        "subjects": [{**judged, "resize_px": 40, "crop_px": 32}],
        "classes": list("abcde"),
        "val_images": 20,
        "val_digest": "d" * 32,
        "orientation": "exif",
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    card = model_card(open_exportable(tmp_path))
    assert "Not known" not in card
    for said in ("| epochs | 3 |", "| layer decay | 0.85 |", "| fine-tuned from | student |", '"resize_px": 40'):
        assert said in card
    assert "| student | 50.0 (40.0-60.0) | 40 pixels | 32 pixels |" in card
    assert "The EXIF orientation of an image was applied." in card
    assert "makes the short side 40 pixels and cuts 32 out of the centre" in card
