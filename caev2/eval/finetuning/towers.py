"""Teachers below a head: towers of open_clip and timm, fine-tuned as the student is, but for what they do not have.

Drop path and biases of relative positions are parts of the student's blocks and do not apply here. Learned positions
are trained along, at the learning rate of the patches.
"""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from caev2.errors import TeacherError
from caev2.eval.finetuning.model import Backbone
from caev2.extract.teachers.openclip import OpenClipTeacher
from caev2.extract.teachers.teacher import Teacher
from caev2.extract.teachers.trunks import TrunkTeacher

_Images = Float[Tensor, "image 3 row column"]
_Tokens = Float[Tensor, "image token width"]
_Keep = Bool[Tensor, "branch image"] | None


class ClipEncoder(nn.Module):
    """A vision transformer of open_clip's own, up to its final norm; see `caev2.extract.teachers.openclip`."""

    def __init__(self, tower: Any):
        super().__init__()
        self.conv1, self.ln_pre = tower.conv1, tower.ln_pre
        self.class_embedding, self.positional_embedding = tower.class_embedding, tower.positional_embedding
        self.blocks = tower.transformer.resblocks

    def forward(self, images: _Images, keep: _Keep = None) -> _Tokens:
        """All tokens, class token first."""
        del keep  # there is no drop path
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self.positional_embedding.to(patches.dtype)
        tokens = self.ln_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class TimmEncoder(nn.Module):
    """A vision transformer of timm, up to its final norm; without a class token, the mean of the patches is its row."""

    def __init__(self, trunk: Any):
        super().__init__()
        self.trunk, self._before = trunk, int(trunk.num_prefix_tokens)

    def forward(self, images: _Images, keep: _Keep = None) -> _Tokens:
        """One row, and all patches."""
        del keep  # there is no drop path
        tokens = self.trunk.forward_features(images)
        patches = tokens[:, self._before :]
        first = tokens[:, :1] if self._before else patches.mean(dim=1, keepdim=True)
        return torch.cat([first, patches], dim=1)


def teacher_backbone(teacher: Teacher) -> Backbone:
    """A copy of a teacher's tower, in fp32.

    Raises:
        TeacherError: It has no final layer norm that could be moved behind the mean.
    """
    facts = teacher.description
    if isinstance(teacher, OpenClipTeacher):
        tower = _copied(teacher.tower)
        encoder, norm = ClipEncoder(tower), tower.ln_post
    elif isinstance(teacher, TrunkTeacher):
        trunk = _copied(teacher.trunk)
        norm = trunk.fc_norm if isinstance(trunk.norm, nn.Identity) else trunk.norm
        for name in ("norm", "fc_norm", "head", "attn_pool"):
            if isinstance(getattr(trunk, name, None), nn.Module):
                setattr(trunk, name, nn.Identity())
        encoder = TimmEncoder(trunk)
    else:
        raise TeacherError(f"{facts.name} is of a kind that cannot be fine-tuned. Give one of open_clip or timm.")
    if not isinstance(norm, nn.LayerNorm):
        raise TeacherError(
            f"{facts.name} cannot be fine-tuned: its final norm is {type(norm).__name__}, no layer norm. Give another."
        )
    return Backbone(
        encoder=encoder,
        norm=norm,
        depth=sum(tap.startswith("block:") for tap in facts.widths),
        image_px=facts.image_px,
        mean=facts.mean,
        std=facts.std,
    )


def _copied(module: Any) -> Any:
    return copy.deepcopy(module).float().cpu().requires_grad_(True)
