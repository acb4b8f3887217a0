"""Whether the memory of an extraction is flat: 10,000 and 100,000 synthetic images, the demo's teacher, one view.

    python benchmarks/extract_memory.py [--images 10000 100000] [--workers 2]

Writes small JPEGs, 64 pixels a side, into a temporary folder, and runs `caev2 extract` on so many of them in a process
of its own. While it runs, the memory of it and of its workers is read from /proc five times a second. What counts is
`own`: the peak of the main process (RSS) and, for each worker, the peak of what it shares with nobody (USS). PSS of all
together is given, too, but it grows when another process on the machine that has torch loaded ends. Writes
benchmarks/results/extract-memory-DATE.json.
"""

import argparse
import datetime
import io
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
SCENE_PX, PICTURES, A_FOLDER = 64, 500, 1000
EVERY_S = 0.2
PROGRAM = "from caev2.cli import main; main()"
SETTINGS = ("--recipe", "demo", "--views", "1", "--codec", "float16", "--device", "cpu", "--quiet")


def write_images(folder: Path, first: int, stop: int) -> None:
    """JPEGs of some hundred different scenes, a thousand in a folder."""
    random = np.random.default_rng(0)
    scenes = []
    for _ in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((SCENE_PX, SCENE_PX), Image.Resampling.BICUBIC).save(buffer, "jpeg")
        scenes.append(buffer.getvalue())
    for number in range(first, stop):
        place = folder / f"scenes-{number // A_FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"scene-{number:08d}.jpg").write_bytes(scenes[number % PICTURES])


def children_of(process: int) -> list[int]:
    try:
        direct = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, direct) for one in (child, *children_of(child))]


def memory_of(process: int) -> dict[str, int]:
    """Bytes by the kernel's names; of a process that has just ended, none."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    found["Uss"] = found.get("Private_Clean", 0) + found.get("Private_Dirty", 0)
    return found


def watch(process: subprocess.Popen) -> dict[str, float]:
    """The peaks of a process that runs, and how long it does."""
    begun, peaks = time.monotonic(), dict.fromkeys(("together_pss", "main_rss", "main_uss", "worker_uss"), 0)
    while process.poll() is None:
        main = memory_of(process.pid)
        workers = [memory_of(child) for child in children_of(process.pid)]
        now = {
            "together_pss": sum(one.get("Pss", 0) for one in (main, *workers)),
            "main_rss": main.get("Rss", 0),
            "main_uss": main.get("Uss", 0),
            "worker_uss": max((one.get("Uss", 0) for one in workers), default=0),
        }
        peaks = {name: max(peak, now[name]) for name, peak in peaks.items()}
        time.sleep(EVERY_S)
    assert process.returncode == 0, process.returncode
    return {**{f"{name}_mb": round(peak / 1e6, 1) for name, peak in peaks.items()}, "s": time.monotonic() - begun}


def measure(folder: Path, count: int, workers: int) -> dict[str, float]:
    images, store = folder / "images", folder / "store"
    present = sum(1 for _ in images.rglob("*.jpg"))
    write_images(images, present, count)
    command = [sys.executable, "-c", PROGRAM, "extract", str(images), str(store), *SETTINGS]
    with subprocess.Popen([*command, "--set", f"workers={workers}"], stdout=subprocess.DEVNULL) as process:
        found = watch(process)
    subprocess.run(["rm", "-r", str(store)], check=True)
    return {"images": count, **found, "own_mb": round(found["main_rss_mb"] + workers * found["worker_uss_mb"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of an extraction by the number of images.")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000], help="Numbers that grow.")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for count in chosen.images:
            found.append(measure(Path(folder), count, chosen.workers))
            print(", ".join(f"{name} {value:,.1f}" for name, value in found[-1].items()), flush=True)
    growth = {
        name: round(found[-1][name] / found[0][name], 3) for name in found[0] if name.endswith("_mb") and found[0][name]
    }
    print("last over first: " + ", ".join(f"{name.removesuffix('_mb')} {value:.2f}" for name, value in growth.items()))
    date = str(datetime.datetime.now(datetime.UTC).date())
    machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
    content = {
        "date": date,
        **machine,
        "workers": chosen.workers,
        "settings": SETTINGS,
        "found": found,
        "growth": growth,
    }
    result = RESULTS / f"extract-memory-{date}.json"
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {result.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
