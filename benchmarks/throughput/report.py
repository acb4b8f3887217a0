"""What `benchmarks/extract_throughput.py` makes of its times: rates, shares, tables."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from caev2.terminal import print_table

PARTS = ("read", "decode", "render", "hash and thumbnail", "encode", "write")
"""Of the work on a view; all but the last two are a decode worker's."""
SHARE_OF_PARTS, SHARE_OF_TEACHER = 0.8, 0.9
"""What is aimed at."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What something took, this process and its workers together."""

    wall_s: float
    cpu_s: float


def workers_of(count: int) -> str:
    """How a number of workers is called here."""
    return f"{count} workers"


def spread(seconds: Sequence[float], scale: float = 1e3) -> dict[str, float]:
    """Milliseconds a view: the least, the median, the most."""
    return {
        "min": min(seconds) * scale,
        "median": statistics.median(seconds) * scale,
        "max": max(seconds) * scale,
    }


def rates(seconds: Sequence[float]) -> dict[str, float]:
    """Views a second: the least, the median, the most."""
    return spread([1 / one for one in seconds], 1.0)


def summarise_codec(found: dict[str, list[Spent]], cores: int, workers: Sequence[int]) -> dict:
    """The rate that the parts allow, and which share of it each number of workers reaches, turn by turn."""
    turns = list(zip(*(found[part] for part in PARTS), strict=True))
    allowed = [cores / sum(one.wall_s for one in turn) for turn in turns]
    needed = [sum(one.cpu_s for one in turn) for turn in turns]
    summary = {
        "parts_ms": {part: spread([one.wall_s for one in found[part]]) for part in PARTS},
        "parts_cpu_ms": {part: spread([one.cpu_s for one in found[part]]) for part in PARTS},
        "parts_allow": spread(allowed, 1.0),
        "extract": {},
    }
    for count in workers:
        spent = found[workers_of(count)]
        shares = [1 / one.wall_s / most for one, most in zip(spent, allowed, strict=True)]
        summary["extract"][workers_of(count)] = {
            "views_per_s": rates([one.wall_s for one in spent]),
            "share_of_parts": spread(shares, 1.0),
            "cpu_ms": spread([one.cpu_s for one in spent]),
            "cpu_of_parts": spread([one.cpu_s / least for one, least in zip(spent, needed, strict=True)], 1.0),
            "cores_busy": spread([one.cpu_s / one.wall_s for one in spent], 1.0),
        }
    return summary


def summarise_teacher(found: dict[str, list[float]], constants: dict) -> dict:
    """The share of the bare forward pass, and the cores that keep it busy, waiting for the disk left out."""
    parts = {part: spread["median"] for part, spread in constants["lloyd4"]["parts_cpu_ms"].items()}
    prepare_ms = sum(parts[part] for part in PARTS[:4])
    bare = rates(found["bare"])
    return {
        "bare_views_per_s": bare,
        "extract_views_per_s": rates(found["extract"]),
        "share_of_bare": spread([one / other for one, other in zip(found["bare"], found["extract"], strict=True)], 1.0),
        "decode_cores_needed": bare["median"] * prepare_ms / 1e3,
        "encode_and_write_cores_needed": bare["median"] * (parts["encode"] + parts["write"]) / 1e3,
    }


def show(values: dict[str, float], digits: int) -> list[str]:
    """Median, and least - most."""
    return [f"{values['median']:,.{digits}f}", f"{values['min']:,.{digits}f} - {values['max']:,.{digits}f}"]


def print_report(report: dict) -> None:
    """Tables for people."""
    for codec, found in report["constants"].items():
        print_constants(codec, found)
    decode = report["constants"]["float16"]["parts_ms"]["decode"]["median"]
    print(f"Decoding alone: {report['cores'] / decode * 1e3:,.0f} views/s on {report['cores']} cores.")
    if (teacher := report["teacher"]) is not None:
        print_teacher(report["device"], teacher)


def print_constants(codec: str, found: dict) -> None:
    """The parts, and what extraction makes of them."""
    lines = [
        [part, *show(found["parts_ms"][part], 3), f"{found['parts_cpu_ms'][part]['median']:.3f}"] for part in PARTS
    ]
    print_table(f"{codec}: parts alone, ms a view", ("part", "median", "least - most", "CPU"), lines)
    lines = [["parts", *show(found["parts_allow"], 0), "1", "", "", ""]]
    for name, one in found["extract"].items():
        cpu, busy = (f"{one[figure]['median']:.2f}" for figure in ("cpu_ms", "cores_busy"))
        lines.append([name, *show(one["views_per_s"], 0), *show(one["share_of_parts"], 2), cpu, busy])
    columns = ("", "views/s", "least - most", "share", "least - most", "CPU ms", "cores")
    print_table(f"{codec}: extraction with constants (aim: {SHARE_OF_PARTS} of the parts)", columns, lines)


def print_teacher(device: str, found: dict) -> None:
    """A ViT-B/16, bare and at work."""
    lines = [
        ["bare forward", *show(found["bare_views_per_s"], 1)],
        ["extraction", *show(found["extract_views_per_s"], 1)],
        ["share", *show(found["share_of_bare"], 3)],
    ]
    title = f"ViT-B/16 on {device}, views/s (aim: {SHARE_OF_TEACHER} of the bare forward)"
    print_table(title, ("", "median", "least - most"), lines)
    print(
        f"So that the device never waits: {found['decode_cores_needed']:.2f} cores that decode and crop, and "
        f"{found['encode_and_write_cores_needed']:.2f} that encode and write (lloyd4)."
    )
