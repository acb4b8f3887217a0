"""Teachers below a head: the tokens are the teacher's own, all of the tower learns, and the teacher stays as it is."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from caev2.eval.finetuning.layer_decay import tuning_groups
from caev2.eval.finetuning.model import FineTuner
from caev2.eval.finetuning.towers import teacher_backbone
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.teacher import Teacher, normalise

TIMM = "vit_small_patch14_reg4_dinov2"


@pytest.fixture(params=["demo", "timm"], scope="module")
def teacher(request, tmp_path_factory) -> Teacher:
    if request.param == "demo":
        return load_teacher("demo", precision="fp32")
    path, generator = tmp_path_factory.mktemp("timm") / "weights", torch.Generator().manual_seed(0)
    model = timm.create_model(TIMM, img_size=42, num_classes=0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    save_file(model.state_dict(), path)
    return load_teacher(f"timm:{TIMM}@{path}", precision="fp32", image_px=42)


def crops(teacher: Teacher) -> torch.Tensor:
    size = teacher.description.image_px
    return torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_patches_are_those_of_the_teachers_last_block(teacher):
    facts, shown = teacher.description, crops(teacher)
    backbone = teacher_backbone(teacher)
    tap = f"block:{backbone.depth}"
    tokens = backbone.encoder(normalise(shown, facts.mean, facts.std), keep=None)
    expected = teacher.tokens(shown, [tap])[tap]
    torch.testing.assert_close(tokens.detach(), expected, atol=1e-4, rtol=1e-4)
    pooled = FineTuner(backbone, 3, head_scale=1.0, seed=0).pool(normalise(shown, facts.mean, facts.std))
    torch.testing.assert_close(pooled, backbone.norm(expected[:, 1:].mean(1)), atol=1e-4, rtol=1e-4)
    assert (backbone.image_px, backbone.rates, backbone.has_position_bias) == (facts.image_px, (), False)


def test_all_of_a_tower_learns_and_the_teacher_stays_as_it_is(teacher):
    facts, shown = teacher.description, crops(teacher)
    before = teacher.tokens(shown, ["post_norm"])["post_norm"]
    backbone = teacher_backbone(teacher)
    model = FineTuner(backbone, 3, head_scale=1.0, seed=0)
    cross_entropy(model(normalise(shown, facts.mean, facts.std)), torch.tensor([0, 1, 2])).backward()
    groups = tuning_groups(model, depth=backbone.depth, layer_decay=0.5, weight_decay=0.05, decay_tables=True)
    assert {group["lr_scale"] for group in groups} == {0.5**step for step in range(backbone.depth + 2)}
    for group in groups:
        for parameter in group["params"]:
            assert parameter.grad is not None
            parameter.data.add_(1.0)
    assert torch.equal(teacher.tokens(shown, ["post_norm"])["post_norm"], before)
