"""What a codec costs the student: trained on its targets and on float16 ones, in pairs of one seed.

    python benchmarks/codec_training.py OUT [--codecs lloyd4 klt] [--seeds 5] [--quick]

The demo's scenes (6,000 to train on, 5,000 to judge), its teacher, recipe and two views. One store for each codec, over
the same scenes; students of one seed share weights at the start, order, views and masks, so a difference between two
of them is the codec's. For each codec: the mean difference of accuracy to float16 in points, and its 95 % interval
(Student's t over the pairs). Interrupted, the same command goes on. Writes
benchmarks/results/codec-training-DATE.json.
"""

import argparse
import dataclasses
import datetime
import json
import math
import statistics
from pathlib import Path

from scipy import stats

from caev2.demo.run import FULL, QUICK
from caev2.demo.scenes import SCENE_PX, write_scenes
from caev2.eval.entrants import RunEntry
from caev2.eval.result import save_result
from caev2.eval.run import KINDS, probe
from caev2.extract.recipes import DEMO as EXTRACT_RECIPE
from caev2.extract.run import extract
from caev2.pretrain.recipes import DEMO as PRETRAIN_RECIPE
from caev2.pretrain.run import pretrain
from caev2.store.describe import describe_store
from caev2.store.reader import Store
from caev2.terminal import Bars, print_table

RESULTS = Path(__file__).parent / "results"
SCENE_SEED = 100
"""Of scenes that nothing was tuned on."""
BASELINE = "float16"


def accuracies(scenes: Path, store: Path, run: Path, size, seed: int, bars: Bars) -> dict[str, float]:
    """Accuracy of a student in percent, by kind of probe; what an earlier call has computed is read."""
    kept = run / "accuracy.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    recipe = dataclasses.replace(PRETRAIN_RECIPE, epochs=size.epochs, batch_size=size.batch_size, seed=seed)
    pretrain(store, run, recipe, images=scenes, progress=bars)
    entry = RunEntry.find(run)
    table = probe([entry.student()], scenes, resize_px=SCENE_PX, seed=0, progress=bars, run=entry.facts())
    save_result(table, run)
    found = {kind: 100 * table.subjects[0].accuracy[kind].value for kind in KINDS}
    kept.write_text(json.dumps(found))
    return found


def paired(codec: list[dict[str, float]], baseline: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean difference to the baseline in points, and half of its 95 % interval."""
    compared = {}
    for kind in KINDS:
        differences = [one[kind] - other[kind] for one, other in zip(codec, baseline, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
        compared[kind] = {"mean": statistics.mean(differences), "half_interval": half, "differences": differences}
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--codecs", nargs="+", default=["lloyd4"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="Few scenes and steps, to see that it works.")
    chosen = parser.parse_args()
    size, bars = QUICK if chosen.quick else FULL, Bars()
    scenes = chosen.out / "scenes"
    write_scenes(scenes, "train", size.train_scenes, SCENE_SEED, bars)
    write_scenes(scenes, "val", size.val_scenes, SCENE_SEED, bars)
    codecs = [BASELINE, *chosen.codecs]
    for codec in codecs:
        recipe = dataclasses.replace(EXTRACT_RECIPE, codec=codec)
        extract(scenes, chosen.out / codec.replace(":", "-") / "store", recipe, progress=bars)
    found: dict[str, list[dict[str, float]]] = {codec: [] for codec in codecs}
    for seed in range(chosen.seeds):  # pair after pair, so that what is there after an interruption is pairs
        for codec in codecs:
            folder = chosen.out / codec.replace(":", "-")
            found[codec].append(accuracies(scenes, folder / "store", folder / f"run-{seed}", size, seed, bars))
            bars.say(f"{codec}, seed {seed}: {found[codec][-1]}")
    compared = {codec: paired(found[codec], found[BASELINE]) for codec in chosen.codecs}
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": "2 CPU cores",
        "quick": chosen.quick,
        "scene_seed": SCENE_SEED,
        "accuracy": found,
        "difference_to_float16": compared,
        "quality": {
            codec: describe_store(Store(chosen.out / codec.replace(":", "-") / "store"))["targets"]["projected"][
                "quality"
            ]
            for codec in codecs
        },
    }
    if not chosen.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"codec-training-{report['date']}.json").write_text(json.dumps(report, indent=1) + "\n")
    rows = [
        [codec, *(f"{parts[kind]['mean']:+.2f} ± {parts[kind]['half_interval']:.2f}" for kind in KINDS)]
        for codec, parts in compared.items()
    ]
    print_table(f"Difference to float16 in points, {chosen.seeds} pairs (95 % interval)", ["codec", *KINDS], rows)


if __name__ == "__main__":
    main()
