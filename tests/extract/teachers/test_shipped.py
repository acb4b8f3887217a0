import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from caev2.errors import TeacherError
from caev2.extract.teachers.catalog import load_teacher

CONFIG = {
    "image_px": 64,
    "patch_px": 16,
    "width": 64,
    "layers": 2,
    "heads": 2,
    "embed_dim": 32,
    "mlp_ratio": 4.0,
    "quick_gelu": True,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}


@pytest.fixture
def write(small_files, tmp_path):
    """Writes the small tower as the demo's weights are written, under a given description of itself."""

    def write(metadata):
        weights = load_file(small_files.safetensors)
        tower = {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}
        save_file(tower, tmp_path / "demo.safetensors", metadata)
        return f"demo@{tmp_path}/demo.safetensors"

    return write


def test_a_file_that_describes_itself_gives_the_same_latents_as_one_that_is_described(
    write, small_files, small_architecture
):
    shipped = load_teacher(write({"config": json.dumps(CONFIG)}))
    named = load_teacher(f"openclip:{small_architecture}@{small_files.torchscript}")
    assert shipped.description.name == "demo"
    assert shipped.description.sha256 == named.description.sha256
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    found, expected = (one.tokens(images, ["projected"])["projected"] for one in (shipped, named))
    assert torch.equal(found, expected)


def test_the_shipped_teacher_loads_and_tells_images_apart():
    teacher = load_teacher("demo")
    assert teacher.description.name == "demo"
    size_px = teacher.description.image_px
    images = torch.randint(
        0, 256, (2, size_px, size_px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    first, second = teacher.tokens(images, ["projected"])["projected"][:, 0]
    assert torch.cosine_similarity(first, second, dim=0) < 0.999
    again = teacher.tokens(images[:1], ["projected"])["projected"][0, 0]
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)


def test_the_described_gelu_is_the_computed_one(write):
    images = torch.full((1, 64, 64, 3), 200, dtype=torch.uint8)
    quick, exact = (
        load_teacher(write({"config": json.dumps({**CONFIG, "quick_gelu": quick})})).tokens(images, ["projected"])[
            "projected"
        ]
        for quick in (True, False)
    )
    assert (quick - exact).abs().max() > 1e-3


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"config": "{"}, {"config": "[]"}]
    + [
        {"config": json.dumps({**CONFIG, **change})}
        for change in ({"heads": 0}, {"width": "64"}, {"quick_gelu": 1}, {"mean": [0.5]}, {"layers": True})
    ],
)
def test_a_file_that_does_not_describe_itself_is_refused(write, metadata):
    with pytest.raises(TeacherError, match=r"does not describe its architecture.*--teacher openclip:"):
        load_teacher(write(metadata))


def test_a_description_that_is_not_of_its_tensors_is_refused(write):
    with pytest.raises(TeacherError, match="is no demo"):
        load_teacher(write({"config": json.dumps({**CONFIG, "layers": 3})}))
