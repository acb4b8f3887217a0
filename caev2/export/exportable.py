"""Weights on their way out: as a stock timm model, under the published names, and what is known of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from caev2.export.timm_model import TimmModel, classifier_as_timm
from caev2.pretrain.student.sizes import ModelSettings

Images = Float[Tensor, "image 3 height width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """Weights that can be written in any format."""

    settings: ModelSettings
    timm: TimmModel
    """As a model of stock timm."""
    published: dict[str, Tensor]
    """All that was trained, under the published names."""
    reference: Callable[[Images], Tensor]
    """What the original computes: tokens after the final norm; of a classifier, its logits."""
    provenance: dict[str, Any]
    """Where the weights come from; no path, host or time."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How they were trained, where that is known."""
    views: Mapping[str, Any] = field(default_factory=dict)
    """How the crops were drawn, where that is known."""
    result: Mapping[str, Any] | None = None
    """The `result.json` of a run, if it is of these weights."""


def of_classifier(
    settings: ModelSettings, tensors: dict[str, Tensor], provenance: dict[str, Any], *, resize_px: int | None = None
) -> Exportable:
    """A fine-tuned classifier out of its tensors under bare published names.

    Raises:
        CheckpointError: It has no head, or tensors of other sizes.
    """
    model = classifier_as_timm(settings, tensors, resize_px=resize_px)
    built: nn.Module = model.build()
    return Exportable(settings=settings, timm=model, published=tensors, reference=built.forward, provenance=provenance)
