"""What each codec costs and keeps: bytes, relative error, centred cosine, rows a second, on one core.

    OMP_NUM_THREADS=1 python benchmarks/codec_quality.py [--photographs-only | --scenes-only]

(a) The shipped demo teacher (65 tokens of its own width) on demo scenes: 1,024 train scenes calibrate, 256 val scenes,
which share no glyph and no pixel with them, judge. (b) A ViT-B/16 with random weights (197 × 768 at its last norm) on
random crops of the photographs that scikit-image and scikit-learn ship: 192 crops calibrate, 64 of other regions judge.
Random weights make no claim about a trained teacher: (b) shows shapes, speed and an unfriendly spectrum.

Held fixed: one thread, the same calibration and held-out rows for every codec, seed 0. `klt` and `pq` are run at the
bytes of `lloyd4` (half the width), and at 31/128 of the width. Writes benchmarks/results/codec-quality-DATE.json.
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import timm
import torch

from caev2.demo.photographs import PHOTOGRAPH_FILES
from caev2.demo.scenes import draw_scene, ground_region
from caev2.extract.catalog import load_teacher
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import Codec, decode
from caev2.store.codecs.tables import tables_digest
from caev2.store.draws import Draws
from caev2.store.quality import Quality, QualityMeter, mean_latents

RESULTS = Path(__file__).parent / "results"
BATCH = 32
SPEED_ROWS, SPEED_ROUNDS = 32, 5
COLUMNS = ("codec", "bytes/row", "error class", "error patch", "class mean", "class p1", "patch mean", "patch p1")


def scene_latents(split: str, count: int) -> Iterator[np.ndarray]:
    teacher = load_teacher("demo", device="cpu")
    for first in range(0, count, BATCH):
        images = np.stack([draw_scene(0, split, index).image for index in range(first, first + BATCH)])
        with torch.inference_mode():
            yield teacher.tokens(torch.from_numpy(images), ["projected"])["projected"].float().numpy()


def photograph_crops(split: str, count: int, size_px: int = 224) -> np.ndarray:
    """Square crops, a quarter of which are enlarged from small ones; train and val are disjoint regions."""
    crops = []
    for index in range(count):
        draws = Draws("codec benchmark", split, index)
        region = torch.from_numpy(ground_region(draws.integer(len(PHOTOGRAPH_FILES)), split).copy())
        side = min(region.shape[0], region.shape[1], 96 + draws.integer(160))
        top, left = draws.integer(region.shape[0] - side + 1), draws.integer(region.shape[1] - side + 1)
        crop = region[top : top + side, left : left + side].permute(2, 0, 1)[None].float()
        crops.append(torch.nn.functional.interpolate(crop, size_px, mode="bicubic", antialias=True)[0])
    return torch.stack(crops).numpy()


def photograph_latents(split: str, count: int) -> Iterator[np.ndarray]:
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    crops = torch.from_numpy(photograph_crops(split, count))
    for batch in crops.split(16):
        with torch.inference_mode():
            yield model.forward_features(batch / 127.5 - 1).numpy()


def rows_a_second(action, rows: int) -> dict[str, float]:
    action()
    seconds = []
    for _ in range(SPEED_ROUNDS):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    values = [rows / one for one in sorted(seconds, reverse=True)]
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


def judge(codec: Codec, calibration: np.ndarray, held_out: np.ndarray) -> dict:
    begun = time.perf_counter()
    tables = codec.fit(calibration)
    fit_s = time.perf_counter() - begun
    meter = QualityMeter(mean_latents([held_out]))
    for first in range(0, len(held_out), BATCH):
        rows = held_out[first : first + BATCH]
        meter.add(rows, decode(codec, codec.encode(rows, tables), tables))
    sample = held_out[:SPEED_ROWS]
    encoded = codec.encode(sample, tables)
    return {
        "codec": codec.name,
        "row_bytes": codec.row_type(*held_out.shape[1:]).row_bytes,
        "quality": asdict(quality_of(meter)),
        "fit_s": fit_s,
        "encode_rows_per_s": rows_a_second(lambda: codec.encode(sample, tables), len(sample)),
        "decode_rows_per_s": rows_a_second(lambda: decode(codec, encoded, tables), len(sample)),
        "tables_digest": tables_digest(tables),
    }


def quality_of(meter: QualityMeter) -> Quality:
    quality = meter.quality()
    assert quality is not None, "there are held-out rows"
    return quality


def names_at(width: int) -> list[str]:
    sizes = (width // 2, width * 31 // 128)
    return ["float16", "int8", "lloyd4", *(f"{kind}:{size}" for size in sizes for kind in ("klt", "pq"))]


def study(title: str, calibration: np.ndarray, held_out: np.ndarray) -> dict:
    print(f"\n{title}: {len(calibration)} rows calibrate, {len(held_out)} judge; {held_out.shape[1:]}\n")
    print("".join(f"{column:>13}" for column in COLUMNS) + f"{'encode rows/s':>24}{'decode rows/s':>24}")
    found = []
    for name in names_at(held_out.shape[-1]):
        found.append(judge(codec_named(name), calibration, held_out))
        print(line_of(found[-1]), flush=True)
    return {"data": title, "shape": list(held_out.shape[1:]), "calibrate": len(calibration), "codecs": found}


def line_of(found: dict) -> str:
    kinds = [found["quality"]["class_token"], found["quality"]["patch_tokens"]]
    errors = [f"{kind['relative_error']:.3g}" for kind in kinds]
    cosines = [f"{kind[figure]:.5f}" for kind in kinds for figure in ("centred_cosine_mean", "centred_cosine_p1")]
    speeds = [
        "{min:,.0f} {median:,.0f} {max:,.0f}".format(**found[f"{way}_rows_per_s"]) for way in ("encode", "decode")
    ]
    cells = [found["codec"], f"{found['row_bytes']:,}", *errors, *cosines]
    return "".join(f"{cell:>13}" for cell in cells) + "".join(f"{speed:>24}" for speed in speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes, error and speed of every codec.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--scenes-only", action="store_true")
    only.add_argument("--photographs-only", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "Relative error; centred cosine (mean, 1st percentile) of class token and patches; speeds are min median max."
    )
    studies = []
    if not chosen.photographs_only:
        rows = [np.concatenate(list(scene_latents(split, count))) for split, count in (("train", 1024), ("val", 256))]
        studies.append(study("demo teacher on scenes", *rows))
    if not chosen.scenes_only:
        rows = [
            np.concatenate(list(photograph_latents(split, count))) for split, count in (("train", 192), ("val", 64))
        ]
        studies.append(study("random ViT-B/16 on photographs", *rows))
    path = RESULTS / f"codec-quality-{datetime.datetime.now(datetime.UTC).date()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"numpy": np.__version__, "threads": 1, "studies": studies}, indent=1) + "\n")
    print(f"\nWritten: {path.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
