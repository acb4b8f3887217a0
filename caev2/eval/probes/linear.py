"""The `fast` linear probe: how much of the labels a linear head reads off frozen features.

Features are computed once, without augmentation. For every pooling on offer, such as the class token beside the mean
of the patches, weight decays on a path are tried on nine tenths of the train images and judged on the last tenth; the
best is fitted again on all.
What is reported plays no part in the choice. Heads are solved, not trained (see `logistic`), after CLIP's own
protocol (Radford et al., 2103.00020, appendix A.3); features are standardised as by the BatchNorm without
affine of the published probe.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from caev2.errors import ConfigError, SourceError
from caev2.eval.checks import check_finite, check_labels, check_several_classes
from caev2.eval.probes.logistic import Head, fit_head, spectrum
from caev2.store.draws import Draws

WEIGHT_DECAYS = tuple(10 ** (half / 2) for half in range(4, -13, -1))
"""From 100, too strong even for thousands of correlated pixels, by factors of √10 down to 10⁻⁶."""

_VARIANCE_FLOOR = 1e-6  # the published probe's BatchNorm eps
_PATIENCE = 2
_PATIENT_FROM = 0.01
"""The weight decay down to which a path never ends: above it, heads of weak features are all as good as none."""
_SEARCH_TOLERANCE = 3e-3  # of heads that are only compared; a tighter one changes few held-out answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One head, judged on the held-out train images."""

    pooling: str
    weight_decay: float
    accuracy: float
    """0 .. 1."""
    loss: float
    """Mean cross-entropy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """What the chosen head says of the test images, and how it was chosen."""

    predictions: Int[Tensor, " test"]
    pooling: str
    weight_decay: float
    held_out_images: int
    held_out_accuracy: float
    """Of the chosen candidate, 0 .. 1; slightly flattered, being the best of several."""
    converged: bool
    """Whether the final head is the minimiser, to the solver's tolerance."""
    candidates: tuple[Candidate, ...]
    """Everything that was tried, in order."""


def linear_probe(
    train: Mapping[str, Float[Tensor, "train _"]],
    labels: Int[Tensor, " train"],
    test: Mapping[str, Float[Tensor, "test _"]],
    *,
    classes: int,
    poolings: Mapping[str, tuple[str, ...]] | None = None,
    seed: int = 0,
    held_out_share: float = 0.1,
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS,
) -> LinearProbe:
    """Choose a pooling and a weight decay on held-out train images, then fit on all train images and predict.

    A pure function of its arguments. Several poolings compete on equal terms.

    Args:
        train: Features of the train images by part, such as `class`, `mean`.
        labels: Of the train images, 0 .. classes-1.
        test: The same parts of the test images, on the same device.
        classes: How many there are.
        poolings: Which parts are put side by side, by the name of the pooling; none: each by itself.
        seed: Of the held-out tenth.
        held_out_share: Of each class's train images, to choose by; 0 .. 1, exclusive.
        weight_decays: To try, strongest first; a path ends early once weak decays get worse.

    Raises:
        CheckpointError: Features are not finite.
        SourceError: A label is out of range, there is one class only, or nothing can be held out.
        ConfigError: Train and test offer different parts, or none; or no weight decay above 0.
    """
    _check(train, labels, test, classes, weight_decays)
    poolings = poolings or {part: (part,) for part in train}
    fit, held_out = hold_out(labels, share=held_out_share, seed=seed)
    candidates: list[Candidate] = []
    for pooling, parts in poolings.items():
        features = _side_by_side(train, parts)
        candidates += _walk_path(pooling, features, labels, fit, held_out, classes, weight_decays)
    best = max(candidates, key=_merit)
    chosen = poolings[best.pooling]
    inputs, outputs = standardise(_side_by_side(train, chosen), _side_by_side(test, chosen))
    head = fit_head(inputs, labels, classes=classes, weight_decay=best.weight_decay, directions=spectrum(inputs))
    return LinearProbe(
        predictions=head.logits(outputs).argmax(dim=1),
        pooling=best.pooling,
        weight_decay=best.weight_decay,
        held_out_images=len(held_out),
        held_out_accuracy=best.accuracy,
        converged=head.converged,
        candidates=tuple(candidates),
    )


def _side_by_side(
    features: Mapping[str, Float[Tensor, "image _"]], parts: tuple[str, ...]
) -> Float[Tensor, "image width"]:
    return features[parts[0]] if len(parts) == 1 else torch.cat([features[part] for part in parts], dim=1)


def hold_out(
    labels: Int[Tensor, " image"], *, share: float, seed: int
) -> tuple[Int[Tensor, " fit"], Int[Tensor, " held"]]:
    """Split images in two, class by class: what to fit on, and what to choose by. Both are indices in order.

    Of every class the share is held out, rounded, but at least one image and never the last.

    Raises:
        SourceError: No class has two images.
    """
    kinds = labels.cpu()
    held = torch.zeros(len(kinds), dtype=torch.bool)
    for kind in kinds.unique().tolist():
        members = (kinds == kind).nonzero().flatten()
        count = min(max(1, round(share * len(members))), len(members) - 1)
        order = Draws(seed, "held-out", kind).permutation(len(members))
        held[members[torch.from_numpy(order)[:count]]] = True
    if not held.any():
        raise SourceError(
            f"None of the {len(kinds.unique())} classes has more than one train image: none can be held out to "
            "choose a head by. Give at least two images of some class."
        )
    return (~held).nonzero().flatten().to(labels.device), held.nonzero().flatten().to(labels.device)


def standardise(
    reference: Float[Tensor, "train width"], *others: Float[Tensor, "_ width"]
) -> tuple[Float[Tensor, "_ width"], ...]:
    """Features with the mean of `reference` subtracted, over its deviation; first `reference` itself.

    A constant channel becomes zero.
    """
    first = reference.float()
    mean = first.mean(dim=0, dtype=torch.float64).float()
    centred = first - mean
    deviation = (centred.square().mean(dim=0) + _VARIANCE_FLOOR).sqrt()
    return (centred.div_(deviation), *((other.float() - mean).div_(deviation) for other in others))


def _merit(candidate: Candidate) -> tuple[float, float]:
    """Accuracy decides, among equals the loss."""
    return candidate.accuracy, -candidate.loss


def _walk_path(
    pooling: str,
    features: Float[Tensor, "train width"],
    labels: Int[Tensor, " train"],
    fit: Int[Tensor, " fit"],
    held_out: Int[Tensor, " held"],
    classes: int,
    weight_decays: tuple[float, ...],
) -> list[Candidate]:
    """Heads of ever weaker decay, each from the one before, until two in a row are worse than the best."""
    inputs, outputs = standardise(features[fit], features[held_out])
    directions = spectrum(inputs)
    candidates: list[Candidate] = []
    head: Head | None = None
    worse = 0
    for decay in weight_decays:
        head = fit_head(
            inputs,
            labels[fit],
            classes=classes,
            weight_decay=decay,
            directions=directions,
            start=head,
            tolerance=_SEARCH_TOLERANCE,
        )
        candidate = _judge(head, outputs, labels[held_out], pooling, decay)
        gains = all(candidate.accuracy > c.accuracy for c in candidates) or all(
            candidate.loss < c.loss for c in candidates
        )
        worse = 0 if gains else worse + 1
        candidates.append(candidate)
        if worse >= _PATIENCE and decay <= _PATIENT_FROM:
            break
    return candidates


def _judge(
    head: Head,
    features: Float[Tensor, "held width"],
    labels: Int[Tensor, " held"],
    pooling: str,
    weight_decay: float,
) -> Candidate:
    logits = head.logits(features)
    return Candidate(
        pooling=pooling,
        weight_decay=weight_decay,
        accuracy=float((logits.argmax(dim=1) == labels).double().mean()),
        loss=float(cross_entropy(logits, labels.long())),
    )


def _check(
    train: Mapping[str, Float[Tensor, "train _"]],
    labels: Int[Tensor, " train"],
    test: Mapping[str, Float[Tensor, "test _"]],
    classes: int,
    weight_decays: tuple[float, ...],
) -> None:
    if not train or train.keys() != test.keys():
        raise ConfigError(
            f"The train features offer the poolings {sorted(train)}, the test features {sorted(test)}. "
            "Compute the same ones, at least one, for both."
        )
    if not weight_decays or min(weight_decays) <= 0:
        raise ConfigError(f"The weight decays to try are {weight_decays}. Give at least one, all above 0.")
    check_labels(labels, classes, "train")
    check_several_classes(labels, "train")
    for pooling in train:
        check_finite(train[pooling], f"train ({pooling})")
        check_finite(test[pooling], f"test ({pooling})")
