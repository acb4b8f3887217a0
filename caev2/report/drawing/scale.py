"""From numbers to places: linear axes with round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A linear axis."""

    low: float | int
    high: float | int
    begin: float | int
    """Where `low` is, in units of the drawing."""
    end: float | int

    def __call__(self, value: float | int) -> float:
        """Where a number is."""
        share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def ticks(low: float | int, high: float | int, count: int = 5) -> tuple[float, ...]:
    """About so many round numbers within a range, its ends included where they are round."""
    if not high > low:
        return (float(low),)
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in _STEPS if power * one >= rough * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(number * step, 12) for number in range(first, last + 1))


def span(values: Sequence[float], *, least: float = 1e-9, from_zero: bool = False) -> tuple[float, float]:
    """A range that holds all values with a little room above and below; of equal values, some around them."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.06, abs(high) * 0.02, least)
    return (min(0.0, low) if from_zero else low - room), high + room


def say_tick(value: float | int) -> str:
    """A tick in few letters: 1.5M, 20k, 0.25."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}".replace("-", "−")
