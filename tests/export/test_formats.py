"""What is exported computes the same where caev2 cannot be imported."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from caev2.errors import CheckpointError, ConfigError, OutputError, UnsafeFile
from caev2.export.run import compare, export
from caev2.export.subject import open_exportable
from caev2.pretrain.student.model import CAEv2, build
from caev2.pretrain.student.sizes import SIZES, ModelSettings
from caev2.pretrain.weights.adopt import adopt_checkpoint
from caev2.pretrain.weights.official import import_official, to_official
from tests.pretrain.canary import hostile_files

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
SETTINGS = ModelSettings(
    image_px=32, patch_px=8, width=192, depth=2, regressor_width=96, regressor_depth=1, target_width=8
)
OUTS = {
    "timm": "encoder.safetensors",
    "timm pickled": "encoder.pth",
    "safetensors": "student.safetensors",
    "huggingface": "folder",
    "onnx": "encoder.onnx",
}


def make_student(settings: ModelSettings) -> CAEv2:
    """With random numbers everywhere, so that a tensor in another's place is seen."""
    model, generator = build(settings, seed=5), torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if name != "encoder.pos_embed":
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        if name.endswith("attn.qkv.bias"):
            parameter.data.chunk(3)[1].zero_()  # keys have none
    return model.eval()


def write_official(folder: Path, student: CAEv2) -> Path:
    torch.save({"model": to_official(student.state_dict())}, folder / "official.pth")
    return folder / "official.pth"


ELSEWHERE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "caev2":
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refuse())
try:
    import caev2
    raise SystemExit("caev2 can be imported")
except ImportError:
    pass
import json
from pathlib import Path
import onnxruntime
import safetensors.torch
import timm
import torch
asked = json.loads(sys.argv[1])
exec(asked["page"])
given = safetensors.torch.load_file(asked["given"])
images, wanted = given["images"], given["tokens"]
found = {}
with torch.inference_mode():
    for name, line in asked["lines"].items():
        loaded = eval(line)
        if name == "onnx":
            tokens = torch.from_numpy(loaded.run(["tokens"], {"images": images.numpy()})[0])
        elif name == "safetensors":
            tokens = timm_from_published(loaded, heads=asked["heads"]).eval().forward_features(images)
        else:
            assert timm.data.resolve_model_data_config(loaded)["mean"][0] == 0.485, name
            tokens = loaded.eval().forward_features(images)
        found[name] = float((tokens - wanted).abs().max() / wanted.abs().max().clamp(min=1))
assert not [name for name in sys.modules if name.split(".")[0] == "caev2"]
print(json.dumps(found))
"""


def differences_elsewhere(folder: Path, student: CAEv2, lines: dict[str, str]) -> dict[str, float]:
    """How far each format's tokens are from the student's, in a process of its own."""
    size = student.settings.image_px
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        tokens = student.encoder(images)
    save_file({"images": images, "tokens": tokens}, folder / "given.safetensors")
    page = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    asked = {
        "page": page,
        "given": str(folder / "given.safetensors"),
        "lines": lines,
        "heads": student.settings.heads,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, json.dumps(asked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def student() -> CAEv2:
    return make_student(SETTINGS)


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    """The student in every format, and what each export said."""
    folder = tmp_path_factory.mktemp("exported")
    official = write_official(folder, student)
    results = {name: export(official, folder / out, name.split()[0]) for name, out in OUTS.items()}
    return folder, results


def test_every_format_computes_the_same_where_caev2_cannot_be_imported(student, exported):
    folder, results = exported
    found = differences_elsewhere(folder, student, {name: result.load for name, result in results.items()})
    assert found.keys() == OUTS.keys()
    assert {name: far for name, far in found.items() if not far <= 1e-5} == {}


def test_every_export_says_how_far_it_is_from_the_original(exported):
    for name, result in exported[1].items():
        assert result.difference <= 1e-5, name
        assert result.out.name == OUTS[name]
        assert result.bytes > 1_000_000


def test_heads_and_sizes_that_timm_has_otherwise_are_arguments(exported):
    result = exported[1]["timm"]
    assert result.architecture == "vit_tiny_patch16_224"
    assert result.arguments == {
        "num_classes": 0, "img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 12, "init_values": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(("size", "arguments"), [
    ("tiny", {"num_classes": 0, "num_heads": 12, "init_values": 0.1}),
    ("small", {"num_classes": 0, "num_heads": 12, "init_values": 0.1}),
    ("base", {"num_classes": 0, "init_values": 0.1}),
    ("large", {"num_classes": 0, "init_values": 1e-5}),
])  # fmt: skip
def test_the_published_sizes_need_their_heads_and_layer_scales_only(size, arguments):
    from caev2.export.timm_model import encoder_as_timm

    model = encoder_as_timm(SIZES[size], {})
    assert model.architecture == f"vit_{size}_patch16_224"
    assert model.arguments == arguments


def test_files_say_what_they_are_and_no_path(exported):
    folder, _ = exported
    with safe_open(folder / OUTS["timm"], framework="pt") as file:
        metadata = file.metadata()
    facts = json.loads(metadata["caev2"])
    assert metadata["format"] == "pt"
    assert facts["timm"]["arguments"]["num_heads"] == 12
    assert facts["model"]["regressor_width"] == 96
    assert len(facts["provenance"]["file_sha256"]) == 64
    assert str(folder) not in metadata["caev2"]
    assert str(folder) not in (folder / "folder" / "README.md").read_text()
    assert str(folder) not in (folder / "folder" / "config.json").read_text()


def test_the_folder_for_the_hub_says_nothing_of_weights_that_timm_has_under_this_name(exported):
    config = json.loads((exported[0] / "folder" / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["model_args"]["num_heads"] == 12
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]
    assert not {"tag", "url", "hf_hub_id", "origin_url", "license"} & {
        name for name, value in config["pretrained_cfg"].items() if value
    }
    assert {path.name for path in (exported[0] / "folder").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }


def test_pooling_and_a_fresh_head_are_as_the_page_says(student, exported):
    place = f"local-dir:{exported[0] / 'folder'}"
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        tokens = student.encoder(images)
        by_token = timm.create_model(place, pretrained=True).eval()
        assert torch.allclose(by_token(images), tokens[:, 0], atol=1e-5)
        by_mean = timm.create_model(place, pretrained=True, global_pool="avg", fc_norm=False).eval()
        assert torch.allclose(by_mean(images), tokens[:, 1:].mean(1), atol=1e-5)
        tuned = timm.create_model(place, pretrained=True, num_classes=10).eval()
        assert torch.allclose(tuned.forward_features(images), tokens, atol=1e-5)
        by_token.reset_classifier(10)
        assert by_token(images).shape == tuned(images).shape == (2, 10)


@pytest.mark.parametrize("name", ["timm", "timm pickled", "huggingface"])
def test_an_exported_encoder_is_imported_again(student, exported, name, tmp_path):
    adopt_checkpoint(exported[0] / OUTS[name], tmp_path / "run")
    model, _ = import_official(exported[0] / OUTS[name])
    for key, tensor in student.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[key], tensor), key


def test_a_whole_student_comes_back_to_the_last_bit(student, exported):
    model, report = import_official(exported[0] / OUTS["safetensors"])
    assert report.missing == ()
    assert model.settings == student.settings
    for key, tensor in student.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_parts_that_were_never_trained_are_not_exported(student, tmp_path):
    encoder = {name: one for name, one in to_official(student.state_dict()).items() if name.startswith("encoder.")}
    torch.save({"model": encoder}, tmp_path / "encoder.pth")
    adopt_checkpoint(tmp_path / "encoder.pth", tmp_path / "run")
    for place in ("encoder.pth", "run"):
        export(tmp_path / place, tmp_path / f"{place}.safetensors", "safetensors")
        assert load_file(tmp_path / f"{place}.safetensors").keys() == encoder.keys()


def test_weights_that_compute_something_else_are_noticed(exported):
    exportable = open_exportable(exported[0] / "official.pth")
    one_off = dict(exportable.timm.tensors)
    one_off["blocks.1.norm2.bias"] = one_off["blocks.1.norm2.bias"] + 1e-3
    changed = dataclasses.replace(exportable.timm, tensors=one_off)
    assert compare(exportable, exportable.timm.build().forward_features) <= 1e-5
    assert compare(exportable, changed.build().forward_features) > 1e-5


def test_nothing_is_overwritten_and_names_fit_their_format(exported, tmp_path):
    folder, _ = exported
    official = folder / "official.pth"
    with pytest.raises(OutputError, match=r"is there already\. Give another path"):
        export(official, folder / OUTS["timm"], "timm")
    with pytest.raises(ConfigError, match=r"cannot hold the format onnx. Give a file that ends in \.onnx"):
        export(official, tmp_path / "encoder.pb", "onnx")
    with pytest.raises(ConfigError, match=r"ends in \.safetensors or \.pth"):
        export(official, tmp_path / "encoder", "timm")
    with pytest.raises(ConfigError, match="is no run, and only a run keeps an average"):
        export(official, tmp_path / "e.onnx", "onnx", averaged=True)
    with pytest.raises(CheckpointError, match="There is nothing at"):
        export(tmp_path / "nowhere", tmp_path / "e.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_broken_weights_are_not_exported(student, tmp_path):
    state = to_official(student.state_dict())
    state["encoder.norm.bias"] = torch.full((192,), float("nan"))
    torch.save({"model": state}, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"broken.pth are broken: 192 of the 192 numbers of encoder.norm.bias"):
        export(tmp_path / "broken.pth", tmp_path / "out.safetensors", "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pth"]


def test_a_hostile_file_is_not_exported_and_nothing_runs(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "official.pth").write_bytes(hostile_files(canary)["zip archive"])
    with pytest.raises(UnsafeFile, match="Nothing was run"):
        export(tmp_path / "official.pth", tmp_path / "out.safetensors", "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


@pytest.mark.slow
def test_base_computes_the_same_in_timm_and_onnxruntime_where_caev2_cannot_be_imported(tmp_path):
    base = make_student(SIZES["base"])
    official = write_official(tmp_path, base)
    lines = {name: export(official, tmp_path / OUTS[name], name).load for name in ("timm", "huggingface", "onnx")}
    found = differences_elsewhere(tmp_path, base, lines)
    assert {name: far for name, far in found.items() if not far <= 1e-5} == {}
