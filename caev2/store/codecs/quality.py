"""How faithful a codec is: relative error and cosines on rows that did not calibrate it, and a floor below them.

The relative error is ‖x − x̂‖² / ‖x − mean‖², both summed over all tokens of a kind. The plain cosine flatters a
teacher whose latents share a large mean; the centred one, between x − mean and x̂ − mean, does not. Class token and
patches are judged apart, each about its own mean.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from caev2.errors import StoreCorrupt
from caev2.store.codecs.codec import CLASS, PATCH

_PERCENTILE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one kind of token."""

    tokens: int
    """Tokens measured."""
    relative_error: float | None
    """None: the latents do not vary, and yet were not decoded exactly."""
    cosine_mean: float
    cosine_p1: float
    """The 1st percentile: 99 % of tokens are at least as faithful."""
    centred_cosine_mean: float
    centred_cosine_p1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What `quality.json` says of one target."""

    class_token: Figures
    patch_tokens: Figures | None
    """None: the rows hold a class token alone."""

    def to_json(self) -> str:
        """Indented JSON; numbers are kept to the last bit."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"


def quality_of(content: Mapping[str, Any]) -> Quality:
    """The quality whose fields these are, as `dataclasses.asdict` has them.

    Raises:
        KeyError, TypeError: They are something else.
    """
    patches = content["patch_tokens"]
    return Quality(
        class_token=Figures(**content["class_token"]), patch_tokens=None if patches is None else Figures(**patches)
    )


def quality_of_json(text: str | bytes) -> Quality:
    """Read what `Quality.to_json` wrote.

    Raises:
        StoreCorrupt: It is something else.
    """
    try:
        return quality_of(json.loads(text))
    except (ValueError, KeyError, TypeError) as problem:
        raise StoreCorrupt(
            f"A record of a codec's quality is damaged ({problem}): it is not the JSON that was written. Restore "
            "quality.json from a copy, or extract the store again."
        ) from None


class _Total:
    """Running sums over tokens of one kind, and the cosine of every token: 16 bytes each, so percentiles are exact."""

    def __init__(self):
        self.error = self.variation = 0.0
        self.cosines: list[np.ndarray] = []

    def add(self, latents: np.ndarray, decoded: np.ndarray, mean: np.ndarray) -> None:
        centred, found = latents - mean, decoded - mean
        self.error += float(np.square(latents - decoded).sum())
        self.variation += float(np.square(centred).sum())
        self.cosines.append(np.stack([_cosine(latents, decoded), _cosine(centred, found)]))

    def figures(self) -> Figures | None:
        if not sum(part.shape[1] for part in self.cosines):
            return None
        plain, centred = np.concatenate(self.cosines, axis=1)
        return Figures(
            tokens=len(plain),
            relative_error=self._relative_error(),
            cosine_mean=float(plain.mean()),
            cosine_p1=_low(plain),
            centred_cosine_mean=float(centred.mean()),
            centred_cosine_p1=_low(centred),
        )

    def _relative_error(self) -> float | None:
        if self.variation > 0:
            return self.error / self.variation
        return None if self.error > 0 else 0.0


class QualityMeter:
    """Compares latents with what their codes decode to, batch after batch.

    Args:
        mean: Of the latents of each kind (`mean_latents`).
    """

    def __init__(self, mean: Float[np.ndarray, "2 width"]):
        self._mean = mean.astype(np.float64)
        self._totals = (_Total(), _Total())

    def add(self, latents: Float[np.ndarray, "row token width"], decoded: Float[np.ndarray, "row token width"]) -> None:
        """Count some rows in; both in the teacher's basis."""
        for kind, tokens in ((CLASS, slice(0, 1)), (PATCH, slice(1, None))):
            width = latents.shape[-1]
            one, other = (rows[:, tokens].reshape(-1, width).astype(np.float64) for rows in (latents, decoded))
            self._totals[kind].add(one, other, self._mean[kind])

    def quality(self) -> Quality | None:
        """The figures over everything so far; none if that is nothing."""
        class_token, patches = (total.figures() for total in self._totals)
        return None if class_token is None else Quality(class_token=class_token, patch_tokens=patches)


def mean_latents(batches: Iterable[Float[np.ndarray, "_ token width"]]) -> Float64[np.ndarray, "2 width"]:
    """The mean latent of each kind over some batches of rows; zeros for a kind without tokens."""
    sums: np.ndarray | float = 0.0
    counts = np.zeros((2, 1))
    for rows in batches:
        kinds = (rows[:, :1], rows[:, 1:])
        sums = sums + np.stack([kind.sum(axis=(0, 1), dtype=np.float64) for kind in kinds])
        counts += [[kind.shape[0] * kind.shape[1]] for kind in kinds]
    return np.asarray(sums / np.maximum(counts, 1))


def _cosine(one: Float64[np.ndarray, "token width"], other: Float64[np.ndarray, "token width"]) -> np.ndarray:
    """1 for two zero vectors, 0 for one."""
    products = (one * other).sum(-1)
    lengths = np.sqrt(np.square(one).sum(-1)) * np.sqrt(np.square(other).sum(-1))
    both_zero = ~one.any(-1) & ~other.any(-1)
    return np.where(both_zero, 1.0, np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))


def _low(values: Float64[np.ndarray, " token"]) -> float:
    """The 1st percentile as one of the values, so that it is exact and never flattering."""
    return float(np.percentile(values, _PERCENTILE, method="lower"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """One figure that misses its limit."""

    kind: str
    """`class_token` or `patch_tokens`."""
    figure: str
    """A field of `Figures`."""
    value: float | None
    limit: float

    def __str__(self) -> str:
        side = "above" if self.figure == "relative_error" else "below"
        value = "undefined (the latents do not vary)" if self.value is None else f"{self.value:.6g}"
        return f"{self.figure} of {self.kind} is {value}, {side} the limit of {self.limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFloor:
    """What a codec must reach for both kinds of tokens; none: not asked for."""

    relative_error: float | None = None
    """At most this."""
    cosine_mean: float | None = None
    """At least this; as are all below."""
    cosine_p1: float | None = None
    centred_cosine_mean: float | None = None
    centred_cosine_p1: float | None = None

    def over(self, defaults: "QualityFloor") -> "QualityFloor":
        """This floor, and where it asks for nothing, the other one."""
        return QualityFloor(**{**asdict(defaults), **{name: x for name, x in asdict(self).items() if x is not None}})

    def shortfalls(self, quality: Quality) -> tuple[Shortfall, ...]:
        """Every figure that misses its limit; none: good enough."""
        found = []
        for kind in ("class_token", "patch_tokens"):
            figures = getattr(quality, kind)
            for figure, limit in asdict(self).items():
                if figures is None or limit is None:
                    continue
                value = getattr(figures, figure)
                if not _reaches(figure, value, limit):
                    found.append(Shortfall(kind=kind, figure=figure, value=value, limit=limit))
        return tuple(found)


def _reaches(figure: str, value: float | None, limit: float) -> bool:
    if value is None:  # undefined, which is as bad as can be
        return limit == ANY_QUALITY.relative_error
    return value <= limit if figure == "relative_error" else value >= limit


FLOORS: dict[str, QualityFloor] = {
    "float16": QualityFloor(relative_error=1e-5),
    "int8": QualityFloor(relative_error=2e-4, centred_cosine_p1=0.999),
    "lloyd4": QualityFloor(relative_error=0.0105, centred_cosine_p1=0.985),
}
"""What the codecs reach on trained teachers, with a little room; the recipe may ask for something else."""
ANY_QUALITY = QualityFloor(relative_error=float("inf"), centred_cosine_p1=-1.0)
"""No floor: for where what a codec loses is what one wants to measure."""
