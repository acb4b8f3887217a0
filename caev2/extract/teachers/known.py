"""The teachers that are listed, as plain facts: listing them loads neither torch nor weights."""

from dataclasses import dataclass

from caev2.extract.teachers.names import DEFAULT_TEACHER


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
    patch_px: int
    grid: str
    """Patches, rows by columns."""
    tokens: int
    """Class row and patches of one crop."""
    depth: int
    """Blocks."""
    width: int
    """Of a token, at `block:i` and `post_norm`."""
    projected: int | None
    """Width of the tap `projected`, the published target; none: there is no such tap."""
    sha256: str | None = None
    """Identity of the image tower's weights, where it is known here."""
    licence: str | None = None
    """Of the weights, where it is known here."""

    @property
    def widths(self) -> dict[str, int]:
        """Every tap, and the width of its latents."""
        joint = {} if self.projected is None else {"projected": self.projected}
        return {**joint, "post_norm": self.width, **{f"block:{n}": self.width for n in range(1, self.depth + 1)}}

    @property
    def taps(self) -> tuple[str, ...]:
        """Where latents can be taken."""
        return tuple(self.widths)


TEACHERS = (
    KnownTeacher(
        name=DEFAULT_TEACHER,
        what="OpenAI CLIP ViT-B/16 with quick GELU, the teacher of the published recipes",
        source="huggingface.co: timm/vit_base_patch16_clip_224.openai, or OpenAI's ViT-B-16.pt",
        local_file="openclip:ViT-B-16-quickgelu@ViT-B-16.pt",
        crop_px=224,
        patch_px=16,
        grid="14x14",
        tokens=197,
        depth=12,
        width=768,
        projected=512,
    ),
    KnownTeacher(
        name="demo",
        what="a small CLIP trained on the built-in scenes, for trying things out",
        source="comes with caev2",
        local_file="demo@teacher.safetensors",
        crop_px=64,
        patch_px=8,
        grid="8x8",
        tokens=65,
        depth=4,
        width=128,
        projected=128,
        sha256="61383107e357a5b6f429e499fee9243025c39fe6a44f470c57838aca28c8cbb9",
        licence="apache-2.0",
    ),
    KnownTeacher(
        name="openclip:ViT-L-14-quickgelu/openai",
        what="OpenAI CLIP ViT-L/14; at 196 pixels, positions resized, its grid is 14x14",
        source="huggingface.co: timm/vit_large_patch14_clip_224.openai, or OpenAI's ViT-L-14.pt",
        local_file="openclip:ViT-L-14-quickgelu@ViT-L-14.pt",
        crop_px=224,
        patch_px=14,
        grid="16x16",
        tokens=257,
        depth=24,
        width=1024,
        projected=768,
    ),
    KnownTeacher(
        name="openclip:EVA02-B-16/merged2b_s8b_b131k",
        what="EVA-CLIP, EVA-02 ViT-B/16",
        source="huggingface.co: timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
        local_file="openclip:EVA02-B-16@open_clip_model.safetensors",
        crop_px=224,
        patch_px=16,
        grid="14x14",
        tokens=197,
        depth=12,
        width=768,
        projected=512,
    ),
    KnownTeacher(
        name="openclip:ViT-B-16-SigLIP2/webli",
        what="SigLIP 2 ViT-B/16: no class token, its class row is what its attention pooling makes of the image",
        source="huggingface.co: timm/ViT-B-16-SigLIP2",
        local_file="openclip:ViT-B-16-SigLIP2@open_clip_model.safetensors",
        crop_px=224,
        patch_px=16,
        grid="14x14",
        tokens=197,
        depth=12,
        width=768,
        projected=None,
    ),
    KnownTeacher(
        name="timm:vit_base_patch14_reg4_dinov2.lvd142m",
        what="DINOv2 ViT-B/14 with registers, which are not stored; at 196 pixels its grid is 14x14",
        source="huggingface.co: timm/vit_base_patch14_reg4_dinov2.lvd142m",
        local_file="timm:vit_base_patch14_reg4_dinov2@model.safetensors",
        crop_px=518,
        patch_px=14,
        grid="37x37",
        tokens=1370,
        depth=12,
        width=768,
        projected=None,
        licence="apache-2.0",
    ),
)
