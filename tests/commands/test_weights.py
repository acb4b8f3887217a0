"""`caev2 export` and `caev2 import`: weights out and in."""

import argparse
import dataclasses
import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file

from caev2.eval.subjects import open_run
from caev2.extract.teachers.catalog import load_teacher
from caev2.pretrain.identity import read_identity
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import SIZES
from caev2.pretrain.weights.official import to_official
from caev2.store.manifest import read_manifest
from tests.commands.invoking import caev2, files_of, refusal, train


def export(subject, kind, out, *more) -> dict:
    """What the command says, as JSON."""
    done = caev2("export", subject, "--format", kind, "--out", out, *more, "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def features(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A published checkpoint of tiny, settings and all."""
    path = tmp_path_factory.mktemp("official") / "caev2_tiny_300ep.pth"
    content = {"model": to_official(build(SIZES["tiny"], seed=3).state_dict()), "epoch": 299}
    torch.save(content | {"args": argparse.Namespace(lr=1.5e-3)}, path)
    return path


def test_a_run_is_exported_for_stock_timm_and_the_printed_line_loads_it(run, tmp_path):
    found = export(run, "timm", tmp_path / "encoder.safetensors")
    assert found["arguments"] == {
        "num_classes": 0, "img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "init_values": 0.1,
    }  # fmt: skip
    assert found["difference"] <= 1e-5
    model = eval(found["load"], {"timm": timm}).eval()
    assert torch.allclose(features(model.forward_features), features(open_run(run, "cpu").encoder), atol=1e-5)
    said = caev2("export", run, "--format", "safetensors", "--out", tmp_path / "student.safetensors").stdout
    assert said.startswith(f"Exported {run}\n")
    assert "head.linear.weight" not in load_file(tmp_path / "student.safetensors")
    assert "decoder.head.weight" in load_file(tmp_path / "student.safetensors")


def test_files_are_judged_as_the_run_is_that_they_came_from(run, images, tmp_path):
    def judge(place) -> dict:
        asked = ("--kind", "knn", "--kind", "linear", "--quiet", "--device", "cpu", "--no-cache", "--json")
        done = caev2("probe", place, images, *asked)
        assert done.exit_code == 0, done.output
        return {one["name"]: one["accuracy"] for one in json.loads(done.stdout)["subjects"]}

    own = judge(run)["student"]
    for kind, name in (("safetensors", "student.safetensors"), ("huggingface", "hub")):
        export(run, kind, tmp_path / name)
        found = judge(tmp_path / name)
        assert list(found) == ["random start", f"student of {name}"]
        assert found[f"student of {name}"] == own
    assert "--ema judges what belongs to a run" in refusal("probe", tmp_path / "hub", images, "--ema")


def test_the_model_card_is_filled_from_the_run(made, run, images, tmp_path):
    assert caev2("probe", run, images, "--kind", "knn", "--quiet", "--device", "cpu", "--no-cache").exit_code == 0
    export(run, "huggingface", tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\n")
    for fact in (
        read_identity(run).fingerprint(),
        read_manifest(made / "store").root_digest,
        load_teacher("demo").description.sha256,
    ):
        assert fact in card
    assert "| epochs | 2 |" in card
    (student,) = [one for one in json.loads((run / "result.json").read_text())["subjects"] if one["role"] == "student"]
    assert f"| student | {100 * student['accuracy']['knn']['value']:.1f} (" in card
    assert str(tmp_path) not in card
    assert str(made) not in card


def test_numbers_of_other_weights_are_not_in_the_card(run, images, tmp_path):
    assert caev2("probe", run, images, "--kind", "knn", "--quiet", "--device", "cpu", "--no-cache").exit_code == 0
    result = json.loads((run / "result.json").read_text())
    result["run"]["checkpoint_sha256"] = "0" * 64
    (run / "result.json").write_text(json.dumps(result))
    export(run, "huggingface", tmp_path / "hub")
    assert "None were measured on these weights" in (tmp_path / "hub" / "README.md").read_text()


def test_an_imported_run_knows_its_file_and_not_its_training(official, tmp_path):
    assert caev2("import", official, tmp_path / "run").exit_code == 0
    export(tmp_path / "run", "huggingface", tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert json.loads((tmp_path / "run" / "import.json").read_text())["sha256"] in card
    assert "Not known: the weights were read from a file" in card


@pytest.mark.parametrize("kind", ["timm", "safetensors", "huggingface"])
def test_what_was_exported_can_be_imported_probed_and_trained_further(made, run, images, tmp_path, kind):
    out = tmp_path / ("hub" if kind == "huggingface" else "weights.safetensors")
    export(run, kind, out)
    assert caev2("import", out, tmp_path / "again").exit_code == 0
    same = open_run(tmp_path / "again", "cpu")
    assert same.settings == open_run(run, "cpu").settings
    assert torch.equal(features(same.encoder), features(open_run(run, "cpu").encoder))
    done = caev2(*train(made / "store", tmp_path / "further", images, "--init-from", out, "--set", "epochs=1"))
    assert done.exit_code == 0, done.output


def test_the_moving_average_is_exported_if_asked(made, images, tmp_path):
    averaged = tmp_path / "averaged"
    assert caev2(*train(made / "store", averaged, images, "--set", "ema_decay=0.5")).exit_code == 0
    export(averaged, "timm", tmp_path / "last.safetensors")
    export(averaged, "timm", tmp_path / "mean.safetensors", "--ema")
    last, mean = (load_file(tmp_path / f"{name}.safetensors") for name in ("last", "mean"))
    assert not torch.equal(last["norm.weight"], mean["norm.weight"])
    assert "holds no moving average" in refusal(
        "export", made / "run", "--format", "timm", "--out", tmp_path / "none.safetensors", "--ema"
    )


def test_every_key_is_in_the_report_and_looking_writes_nothing(official, tmp_path):
    before = files_of(official.parent)
    done = caev2("import", official, "--report")
    assert done.exit_code == 0, done.output
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    state = torch.load(official, weights_only=False)["model"]
    assert state.keys() <= lines.keys()
    assert lines["encoder.blocks.3.attn.q_bias"] == "fills encoder.blocks.3.attn.qkv.bias, first third"
    assert lines["args"] == lines["epoch"] == "is no tensor: ignored"
    assert "would give" in done.stdout
    assert files_of(official.parent) == before


def test_keys_that_are_left_out_and_parts_that_are_missing_are_told(official, tmp_path):
    state = torch.load(official, weights_only=False)["model"]
    encoder = {name: tensor for name, tensor in state.items() if name.startswith("encoder.")}
    torch.save({"model": encoder | {"teacher.norm.weight": torch.ones(192)}}, tmp_path / "encoder.pth")
    said = caev2("import", tmp_path / "encoder.pth", tmp_path / "run", "--report").stdout
    assert "teacher.norm.weight" in said
    assert "ignored: the copy of the encoder that CAE v1 aligned with" in said
    assert "(regressor.mask_token)" in said
    assert "which start fresh: all of projection, regressor, head" in said
    found = json.loads(caev2("import", tmp_path / "encoder.pth", "--report", "--json").stdout)
    assert found["used"].keys() == encoder.keys()
    assert found["run"] is None


def test_an_import_without_a_run_or_a_report_is_a_mistake(official):
    assert "Missing argument 'RUN'. Give it, or --report" in refusal("import", official)


def test_heads_can_be_told(tmp_path):
    settings = dataclasses.replace(SIZES["tiny"], width=48, depth=1, heads=4, regressor_width=48, regressor_heads=4)
    state = to_official(build(settings, seed=3).state_dict())
    torch.save({name: tensor for name, tensor in state.items() if name.startswith("encoder.")}, tmp_path / "other.pth")
    assert "--heads" in refusal("import", tmp_path / "other.pth", tmp_path / "run")
    assert caev2("import", tmp_path / "other.pth", tmp_path / "run", "--heads", 4).exit_code == 0
    assert open_run(tmp_path / "run", "cpu").settings.heads == 4
    found = export(tmp_path / "other.pth", "timm", tmp_path / "other.safetensors", "--heads", 4)
    assert found["arguments"]["num_heads"] == 4


def test_options_of_files_and_runs_are_not_mixed(made, tmp_path):
    out = tmp_path / "x.safetensors"
    assert "which knows its heads" in refusal("export", made / "run", "--format", "timm", "--out", out, "--heads", 3)
    assert "is there already" in refusal("export", made / "run", "--format", "huggingface", "--out", made / "images")
    assert "is a URL; give a local path" in refusal("export", made / "run", "--format", "timm", "--out", "s3://a/b.pth")
    assert not out.exists()


def test_a_run_without_a_checkpoint_has_nothing_to_export(run, tmp_path):
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint yet" in refusal("export", run, "--format", "timm", "--out", tmp_path / "x.safetensors")
