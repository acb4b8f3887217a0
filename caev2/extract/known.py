"""The teachers that are built in, as plain facts: listing them loads neither torch nor weights."""

from dataclasses import dataclass

from caev2.extract.names import DEFAULT_TEACHER


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTeacher:
    """A teacher that can be named without further thought."""

    name: str
    """What `--teacher` takes."""
    what: str
    source: str
    """Where its weights come from."""
    local_file: str
    """How to name a file that holds them."""
    crop_px: int
    tokens: int
    """Class token and patches of one crop."""
    taps: tuple[str, ...]
    """Where latents can be taken; `projected` is the published target."""


TEACHERS = (
    KnownTeacher(
        name=DEFAULT_TEACHER,
        what="OpenAI CLIP ViT-B/16 with quick GELU, the teacher of the published recipes",
        source="huggingface.co: timm/vit_base_patch16_clip_224.openai, or OpenAI's ViT-B-16.pt",
        local_file="openclip:ViT-B-16-quickgelu@ViT-B-16.pt",
        crop_px=224,
        tokens=197,
        taps=(*(f"block:{number}" for number in range(1, 13)), "post_norm", "projected"),
    ),
    KnownTeacher(
        name="demo",
        what="a small CLIP trained on the built-in scenes, for trying things out",
        source="comes with caev2",
        local_file="demo@teacher.safetensors",
        crop_px=64,
        tokens=65,
        taps=(*(f"block:{number}" for number in range(1, 5)), "post_norm", "projected"),
    ),
)
