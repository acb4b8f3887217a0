"""What probes see of a transformer: the same tokens as its blocks give, put together as the names say."""

import timm
import torch
from torch.nn.functional import layer_norm

from caev2.eval.subjects import student_subject, teacher_subject
from caev2.extract.teachers.catalog import load_teacher
from caev2.pretrain.learning.step import normalise_images
from caev2.pretrain.student.model import build
from tests.made_up import PRETRAIN, PatchMeans


def crops(size_px: int, images: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (images, size_px, size_px, 3), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def test_a_students_blocks_are_those_of_stock_timm():
    sizes = PRETRAIN.model
    model = build(sizes, 1).eval()
    stock = timm.models.VisionTransformer(
        img_size=sizes.image_px, patch_size=sizes.patch_px, embed_dim=sizes.width, depth=sizes.depth,
        num_heads=sizes.heads, mlp_ratio=sizes.mlp_ratio, init_values=sizes.layer_scale, num_classes=0,
    ).eval()  # fmt: skip
    stock.load_state_dict(model.encoder.state_dict(), strict=False)
    images = crops(sizes.image_px)
    subject = student_subject(model, "student")
    pooled, tokens = subject.trunk.pool_and_keep(images)
    last, outputs = stock.forward_intermediates(
        normalise_images(images), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=False
    )
    torch.testing.assert_close(tokens, last, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled["class"], last[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled["mean"], last[:, 1:].mean(1), atol=1e-5, rtol=1e-5)
    for number in range(max(1, sizes.depth - 3), sizes.depth):
        _, prefix = outputs[number - 1]
        theirs = layer_norm(prefix[:, 0], prefix.shape[-1:], eps=1e-6)
        torch.testing.assert_close(pooled[f"class of block {number}"], theirs, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_teachers_features_are_those_of_its_taps():
    teacher = load_teacher("demo")
    images = crops(64)
    subject = teacher_subject(teacher, "teacher")
    depth = subject.trunk.depth
    assert f"block:{depth}" in teacher.description.widths
    pooled = subject.pool(images)
    projected = teacher.tokens(images, ["projected"])["projected"]
    assert torch.equal(pooled["class"], projected[:, 0])
    before_last = teacher.tokens(images, [f"block:{depth - 1}"])[f"block:{depth - 1}"][:, 0]
    theirs = layer_norm(before_last, before_last.shape[-1:], eps=1e-6)
    assert torch.equal(pooled[f"class of block {depth - 1}"], theirs)
    last_of = teacher_subject(teacher, "teacher", f"block:{depth - 1}").trunk
    final, (one, two) = last_of.read(images, [depth - 1, 1])
    assert torch.equal(final, one)
    assert not torch.equal(one, two)


def test_poolings_name_the_parts_that_are_put_side_by_side():
    subject = teacher_subject(load_teacher("demo"), "teacher")
    depth = subject.trunk.depth
    earlier = tuple(f"class of block {depth - back}" for back in range(1, min(4, depth)))
    found = subject.poolings
    assert found["class+mean"] == ("class", "mean")
    assert found[f"class of last {1 + len(earlier)}+mean"] == ("class", *earlier, "mean")
    assert {part for parts in found.values() for part in parts} == set(subject.pool(crops(64)))
    shallow = teacher_subject(PatchMeans(), "teacher")
    assert list(shallow.poolings) == ["class", "mean", "class+mean"]
    assert list(shallow.pool(crops(shallow.size_px))) == ["class", "mean"]
