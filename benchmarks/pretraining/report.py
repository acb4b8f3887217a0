"""What the times come to: rates, ratios of the same round, shares of the card's peak; as JSON and as tables."""

import datetime
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from caev2.terminal import print_table

from .bare import share_of_student
from .contenders import LIVE, LIVE_BF16, PLAIN, STORE, STUDENT, TEACHER, TIMM, TIMM_UNFUSED
from .setting import Setting, describe_machine
from .timing import Turn

RESULTS = Path(__file__).parents[1] / "results"
STUDENT_OVER_BARE = "c's student alone: time / bare timm's, unfused"
RATIOS = {
    "a / b": (STORE, LIVE),
    "a / b, teacher in bf16": (STORE, LIVE_BF16),
    "a / c": (STORE, PLAIN),
    "a / c's student alone": (STORE, STUDENT),
    "c's student alone: time / bare timm's": (TIMM, STUDENT),
    STUDENT_OVER_BARE: (TIMM_UNFUSED, STUDENT),
}
"""Images/s of the first over those of the second; or, which is the same, the second's time over the first's."""
WITHOUT_STUDENT = (TEACHER,)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The least, the median, the most."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def summarise(setting: Setting, turns: Mapping[str, list[Turn]], memory_mb: Mapping[str, float]) -> dict:
    """One size."""
    ratios = {
        name: spread([two.seconds / one.seconds for one, two in zip(turns[fast], turns[slow], strict=True)])
        for name, (fast, slow) in RATIOS.items()
        if fast in turns and slow in turns
    }
    if STUDENT_OVER_BARE in ratios:
        share = share_of_student(setting.recipe.model, setting.recipe.mask.count)
        per = {name: ratio * share for name, ratio in ratios[STUDENT_OVER_BARE].items()}
        ratios[f"{STUDENT_OVER_BARE}, per multiply-add"] = per
    return {
        "batch": setting.batch,
        "masked": setting.recipe.mask.count,
        "precision": setting.precision,
        "compiled": setting.compiled,
        "contenders": {name: _figures(setting, name, some, memory_mb.get(name)) for name, some in turns.items()},
        "ratios": ratios,
    }


def _figures(setting: Setting, name: str, turns: list[Turn], memory_mb: float | None) -> dict:
    rates = spread([setting.batch / turn.seconds for turn in turns])
    waited = [100 * turn.waited for turn in turns if turn.waited is not None]
    return {
        "images_per_s": rates,
        "step_ms": spread([1e3 * turn.seconds for turn in turns]),
        "mfu": None if name in WITHOUT_STUDENT else setting.mfu(rates["median"]),
        "data_wait_percent": spread(waited) if waited else None,
        "peak_memory_mb": memory_mb,
    }


def print_size(size: str, found: dict) -> None:
    """Tables for people."""
    lines = []
    for name, one in found["contenders"].items():
        waited = one["data_wait_percent"]
        lines.append(
            [
                name,
                *_show(one["images_per_s"], 1),
                _or_dash(one["mfu"], "{:.1%}"),
                _or_dash(one["peak_memory_mb"], "{:,.0f}"),
                "-" if waited is None else f"{waited['median']:.1f}",
            ]
        )
    title = f"{size}: batch {found['batch']}, {found['precision']}{', compiled' if found['compiled'] else ''}"
    print_table(title, ("", "images/s", "least - most", "MFU", "peak MB", "data wait %"), lines)
    lines = [[name, *_show(one, 2)] for name, one in found["ratios"].items()]
    print_table(f"{size}: ratios of the same round", ("", "median", "least - most"), lines)


def _show(values: Mapping[str, float], digits: int) -> list[str]:
    return [f"{values['median']:,.{digits}f}", f"{values['min']:,.{digits}f} - {values['max']:,.{digits}f}"]


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


class Report:
    """A dated file, written anew after each size so that a run that is cut short leaves what it has.

    Args:
        kind: Of benchmark, the beginning of the file's name.
        device: Where it ran.
        held_fixed: What is the same for everything in it.
        written: Whether there is a file at all.
    """

    def __init__(self, kind: str, device: str, held_fixed: dict, *, written: bool):
        date = str(datetime.datetime.now(datetime.UTC).date())
        self.path = RESULTS / f"{kind}{'' if device == 'cpu' else '-gpu'}-{date}.json" if written else None
        self.content = {
            "date": date,
            **describe_machine(),
            "device": device,
            "load_average": {"before": os.getloadavg()},
            "held_fixed": held_fixed,
            "sizes": {},
        }

    def add(self, size: str, found: dict) -> None:
        """Tell of a size, and write what there is."""
        self.content["sizes"][size] = found
        self.content["load_average"]["after"] = os.getloadavg()
        print_size(size, found)
        if self.path is not None:
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(json.dumps(self.content, indent=1) + "\n")
            click.echo(f"Written: {self.path.relative_to(RESULTS.parents[1])}")
