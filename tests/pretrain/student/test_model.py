import dataclasses
import math
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from caev2.errors import ConfigError
from caev2.pretrain.student.model import CAEv2, branch_rates, build, count_parameters
from caev2.pretrain.student.sizes import SIZES, ModelSettings
from caev2.pretrain.supply.keep import keep_bits

SMALL = ModelSettings(
    image_px=32, patch_px=8, width=24, depth=2, heads=4, regressor_width=12, regressor_depth=2,
    regressor_heads=4, target_width=8, drop_path=0.4,
)  # fmt: skip
VISIBLE = torch.tensor([[0, 3, 5, 9, 15], [1, 2, 3, 4, 5]])
MASKED = torch.tensor([sorted(set(range(16)) - set(row)) for row in VISIBLE.tolist()])


def sizes_on_paper(name: str, **changes) -> CAEv2:
    with torch.device("meta"):
        return CAEv2(dataclasses.replace(SIZES[name], **changes))


@pytest.mark.parametrize(
    ("name", "changes", "encoder", "regressor", "head", "projection"),
    [
        ("tiny", {}, 5_488_896, 112_512, 49_856, 18_720),
        ("small", {}, 21_594_624, 1_777_152, 197_888, 0),
        ("base", {}, 85_656_576, 28_368_384, 395_264, 0),
        ("large", {"target_width": 768}, 303_124_480, 50_407_424, 789_248, 0),
        ("large", {"target_width": 768, "regressor_width": 768}, 303_124_480, 28_368_384, 592_128, 788_736),
    ],
)
def test_parameter_counts_are_the_published_ones(name, changes, encoder, regressor, head, projection):
    """Golden, from the published models; the regressor of large has 16 full heads here, see the next test but one."""
    model = sizes_on_paper(name, **changes)
    width = model.settings.regressor_width
    unused_norm = 2 * width  # published, but no token passes it
    mask_token = width
    counted = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("head", "projection")}
    assert counted == {"head": head, "projection": projection}
    assert sum(p.numel() for p in model.regressor.parameters()) - mask_token + unused_norm == regressor
    total = count_parameters(model, key_bias=False) + unused_norm
    assert total == encoder + regressor + head + projection + mask_token
    assert count_parameters(model) - count_parameters(model, key_bias=False) == (
        model.settings.depth * model.settings.width
    )


@pytest.mark.parametrize(("name", "total"), [("tiny", 5_670_080), ("small", 23_570_048), ("base", 114_420_992)])
def test_whole_models_have_the_published_size(name, total):
    model = sizes_on_paper(name)
    assert count_parameters(model, key_bias=False) + 2 * model.settings.regressor_width == total


def test_large_differs_from_its_published_size_by_heads_that_fill_the_width():
    """The published regressor has 12 heads of 85 channels, 4 channels short in three matrices' rows and one's columns."""
    model = sizes_on_paper("large", target_width=768)
    counted = sum(p.numel() for p in model.regressor.parameters()) + 1024  # less mask token, plus unused norm
    short = 4 * (4 * 4 * 1024 + 2 * 4)
    assert round((counted - short) / 1e6, 2) == 50.34
    assert round(count_parameters(model, key_bias=False) / 1e6, 1) == 354.3


def test_fresh_weights_have_the_published_distributions():
    model = build(SIZES["base"], seed=0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            fan_out, fan_in = module.weight.shape
            limit = math.sqrt(6 / (fan_in + fan_out))
            assert module.weight.abs().max() <= limit
            assert module.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    # the numbers measured on the published code
    assert model.encoder.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.0255, abs=1e-4)
    assert model.encoder.blocks[0].attn.proj.weight.std().item() == pytest.approx(0.0361, abs=1e-4)
    assert model.head.linear.weight.std().item() == pytest.approx(0.0395, abs=1e-4)
    assert not model.encoder.patch_embed.proj.bias.any()
    assert model.encoder.patch_embed.proj.weight.std().item() == pytest.approx(0.0108, abs=1e-4)
    for token in (model.encoder.cls_token, model.regressor.mask_token):
        assert token.std().item() == pytest.approx(0.0108, abs=1e-3)
        assert token.abs().max() <= 0.02
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            assert (parameter == 0.1).all()


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = build(SMALL, seed=0)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "building a student moved the global generator"
    second, other = build(SMALL, seed=0), build(SMALL, seed=1)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert not torch.equal(first.head.linear.weight, other.head.linear.weight)


def test_predictions_of_seen_tokens_do_not_depend_on_which_patches_are_regressed():
    model = build(SMALL, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    full = model(images, VISIBLE, MASKED)
    part = model(images, VISIBLE, MASKED[:, :3])
    torch.testing.assert_close(full[:, :6], part[:, :6], atol=1e-6, rtol=0)
    assert (full[:, 6:9] - part[:, 6:9]).abs().max() > 1e-6  # masked tokens see each other


def test_the_class_token_takes_no_part_in_the_regression():
    model = build(SMALL, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = model(images, VISIBLE, MASKED)

    def move_class_latent(_module, _inputs, latents):
        return torch.cat([latents[:, :1] + torch.arange(12), latents[:, 1:]], dim=1)

    with model.projection.register_forward_hook(move_class_latent):
        after = model(images, VISIBLE, MASKED)
    assert torch.equal(before[:, 1:], after[:, 1:])
    assert not torch.equal(before[:, 0], after[:, 0])


def test_keep_bits_of_a_row_act_on_that_row_alone():
    model = build(SMALL, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rates = branch_rates(SMALL)
    keep = torch.ones(len(rates), 2, dtype=torch.bool)
    changed = keep.clone()
    changed[[2, 3, 6, 7], 1] = False
    before, after = model(images, VISIBLE, MASKED, keep), model(images, VISIBLE, MASKED, changed)
    torch.testing.assert_close(before[0], after[0], atol=1e-6, rtol=0)
    assert (before[1] - after[1]).abs().max() > 1e-4


def test_with_drop_path_off_every_branch_is_kept_unscaled():
    settings = dataclasses.replace(SMALL, drop_path=0.0)
    model = build(settings, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    keep = torch.from_numpy(keep_bits(0, 0, 0, [5, 9], branch_rates(settings)))
    assert torch.equal(model(images, VISIBLE, MASKED, keep), model(images, VISIBLE, MASKED))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"patch_px": 7}, "patch_px"),
        ({"heads": 5}, "width"),
        ({"regressor_heads": 5}, "regressor_width"),
        ({"width": 6, "heads": 2}, "width"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"layer_scale": 0.0}, "layer_scale"),
        ({"depth": 0}, "depth"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, field):
    with pytest.raises(ConfigError, match=rf"student's {field} cannot be"):
        dataclasses.replace(SMALL, **change)


COMPILE = """
import torch
from caev2.pretrain.supply.keep import keep_bits
from caev2.pretrain.student.model import branch_rates, build
from caev2.pretrain.student.sizes import ModelSettings

settings = ModelSettings(
    image_px=32, patch_px=8, width=24, depth=2, heads=4, regressor_width=12, regressor_depth=2,
    regressor_heads=4, target_width=8, drop_path=0.4,
)
model = build(settings, seed=0)
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
visible, masked = torch.arange(16).expand(2, -1).split([5, 11], dim=1)
keep = torch.from_numpy(keep_bits(0, 0, 0, [5, 9], branch_rates(settings)))
compiled = torch.compile(model, fullgraph=True)
torch.testing.assert_close(
    compiled(images, visible, masked, keep), model(images, visible, masked, keep), atol=1e-5, rtol=1e-5
)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_the_student_compiles_as_one_graph_and_computes_the_same():
    """In a process of its own: the checks of shapes that tests run under cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
