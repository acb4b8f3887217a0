"""What `caev2 extract --dry-run` measures here: 500x375 JPEGs, ViT-B/16, one, four and eight views.

    python benchmarks/dry_run.py [--device cpu]

The images are windows of the photographs that scikit-image ships; the teacher has the size of CLIP ViT-B/16 and random
weights, which cost as much time as trained ones. Writes benchmarks/results/dry-run-DATE.json, from which
benchmarks/scale_tables.py takes its measured rates.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
SIZE, QUALITY, IMAGES = (500, 375), 92, 256
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def write_images(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    photographs = [Image.fromarray(getattr(data, name)()[..., :3]) for name in PHOTOGRAPHS]
    for number in range(IMAGES):
        photograph = photographs[number % len(photographs)]
        width, height = photograph.size
        left, top = (int(random.integers(0, side // 5)) for side in (width, height))
        window = photograph.crop((left, top, left + width * 4 // 5, top + height * 4 // 5))
        window.resize(SIZE, Image.Resampling.LANCZOS).save(folder / f"{number:04d}.jpg", quality=QUALITY)


def main() -> None:
    parser = argparse.ArgumentParser(description="The rates that a dry run measures.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        clip = folder / "ViT-B-16.pt"
        subprocess.run([sys.executable, ROOT / "examples" / "make_random_clip.py", clip], check=True)
        for views in (1, 4, 8):
            command = [Path(sys.executable).with_name("caev2"), "extract", folder / "images", folder / "store"]
            command += [
                "--recipe",
                "base-300e",
                "--teacher",
                f"openclip:ViT-B-16-quickgelu@{clip}",
                "--codec",
                "lloyd4",
            ]
            command += ["--views", str(views), "--crops", "jpeg", "--device", chosen.device]
            command += ["--dry-run", "--json", "--quiet"]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found[str(views)] = told
            print(
                f"{views} views: decode {told['decode_rows_per_s_per_core']:,.1f} and encode "
                f"{told['encode_rows_per_s_per_core']:,.0f} rows/s a core, teacher {told['teacher_rows_per_s']:,.1f} "
                f"rows/s, kept JPEG {told['crops_bytes'] / told['rows']:,.0f} bytes"
            )
    date = str(datetime.datetime.now(datetime.UTC).date())
    load = [round(value, 1) for value in os.getloadavg()]
    content = {
        "date": date,
        "cores": len(os.sched_getaffinity(0)),
        "device": chosen.device,
        "load": load,
        "views": found,
    }
    result = ROOT / "benchmarks" / "results" / f"dry-run-{date}.json"
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {result.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
