"""Fine-tuned classifiers as stock timm models, against the logits that the published implementation computed."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from caev2.errors import CheckpointError, ConfigError
from caev2.eval.finetuning.identity import TuneIdentity, claim
from caev2.export.onnx_file import open_onnx
from caev2.export.run import export
from caev2.export.subject import open_exportable
from caev2.pretrain.weights.checkpoint import FORMAT
from caev2.pretrain.weights.tensor_file import write_tensors

PARITY = Path(__file__).parents[1] / "data" / "parity"
FILES = {"plain": "vit_base_patch16_224", "rel_pos": "beit_base_patch16_224"}


@pytest.fixture(params=FILES)
def oracle(request, tmp_path):
    """A fine-tuned file in the published layout, its numbers, and timm's name for it."""
    tensors = load_file(PARITY / f"finetune_{request.param}.safetensors")
    weights = {key.removeprefix("weight/"): one for key, one in tensors.items() if key.startswith("weight/")}
    torch.save({"model": weights, "epoch": "best"}, tmp_path / "checkpoint-best.pth")
    return tmp_path, tensors, FILES[request.param]


def far(logits: torch.Tensor, tensors: dict[str, torch.Tensor]) -> float:
    return float((logits - tensors["output/logits"]).abs().max())


def test_stock_timm_gives_the_published_logits(oracle):
    folder, tensors, architecture = oracle
    result = export(folder / "checkpoint-best.pth", folder / "model.safetensors", "timm", heads=4)
    assert result.architecture == architecture
    assert result.output == "logits"
    assert result.arguments["num_classes"] == 7
    model = timm.create_model(architecture, checkpoint_path=folder / "model.safetensors", **result.arguments).eval()
    with torch.inference_mode():
        assert far(model(tensors["input/images"]), tensors) <= 1e-5


def test_so_do_a_folder_for_the_hub_and_onnxruntime(oracle):
    folder, tensors, _ = oracle
    for kind, out in (("huggingface", "hub"), ("onnx", "model.onnx"), ("safetensors", "same.safetensors")):
        export(folder / "checkpoint-best.pth", folder / out, kind, heads=4)
    hub = timm.create_model(f"local-dir:{folder / 'hub'}", pretrained=True).eval()
    with torch.inference_mode():
        assert far(hub(tensors["input/images"]), tensors) <= 1e-5
        assert far(open_onnx(folder / "model.onnx", "logits")(tensors["input/images"]), tensors) <= 1e-5
    same = load_file(folder / "same.safetensors")
    assert {key for key in same if not torch.equal(same[key], tensors[f"weight/{key}"])} == set()
    assert "pipeline_tag: image-classification" in (folder / "hub" / "README.md").read_text()


def test_a_fine_tuning_of_our_own_is_exported_like_the_published_one(oracle):
    """The same weights in a checkpoint of ours, under timm's names."""
    folder, tensors, architecture = oracle
    state = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("weight/")
        if not key.startswith("weight/") or name.endswith(("relative_position_index", "v_bias")):
            continue
        if name.endswith("q_bias"):
            value = tensors[key.removesuffix("q_bias") + "v_bias"]
            name, tensor = name.replace("q_bias", "qkv.bias"), torch.cat([tensor, torch.zeros_like(tensor), value])
        name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        state["model/" + ("" if name.startswith(("fc_norm.", "head.")) else "encoder.") + name] = tensor
    facts = {"format": FORMAT, "step": 9, "fingerprint": "0" * 32}
    write_tensors(folder / "tuned" / "checkpoints" / "step-000000009.safetensors", state, facts)
    claim(folder / "tuned", TuneIdentity(start={}, recipe={}, images={}))
    result = export(folder / "tuned", folder / "model.onnx", "onnx", heads=4)
    assert result.architecture == architecture
    assert far(open_onnx(folder / "model.onnx", "logits")(tensors["input/images"]), tensors) <= 1e-5


def test_an_exported_classifier_is_exported_again_with_its_head(oracle):
    folder, tensors, _ = oracle
    export(folder / "checkpoint-best.pth", folder / "file.safetensors", "timm", heads=4)
    export(folder / "checkpoint-best.pth", folder / "hub", "huggingface", heads=4)
    for number, place in enumerate(("file.safetensors", "hub")):
        result = export(folder / place, folder / f"again-{number}.safetensors", "safetensors")
        assert (result.output, result.arguments["num_classes"]) == ("logits", 7)
        same = load_file(folder / f"again-{number}.safetensors")
        assert {key for key in same if not torch.equal(same[key], tensors[f"weight/{key}"])} == set()
        hub = folder / f"hub-{number}"
        export(folder / place, hub, "huggingface")
        with torch.inference_mode():
            model = timm.create_model(f"local-dir:{hub}", pretrained=True).eval()
            assert far(model(tensors["input/images"]), tensors) <= 1e-5


def test_a_pickled_file_may_not_lose_heads_that_its_width_does_not_tell(oracle):
    folder, _, _ = oracle
    with pytest.raises(ConfigError, match=r"has 4 heads.*width of 48 would stand for no number.*\.safetensors"):
        export(folder / "checkpoint-best.pth", folder / "model.pth", "timm", heads=4)
    assert not (folder / "model.pth").exists()


def test_heads_that_nothing_tells_are_asked_for(oracle):
    folder, _, _ = oracle
    with pytest.raises(CheckpointError, match=r"width 48 is of no published size .* --heads"):
        open_exportable(folder / "checkpoint-best.pth")
