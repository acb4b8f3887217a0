"""How much of a machine extraction uses: against its own parts, against decoding, against the bare teacher.

    python benchmarks/extract_throughput.py [--quick] [--device cuda] [--folder DIR]

Made-up sources of real photographs (crops of those that scikit-image and scikit-learn carry, 500x375 pixels, JPEG of
quality 90), 8 views each. In turns, so that whatever else the machine does meets all alike:

* each part of the work alone, in this process: read, decode, render, hash and thumbnail, encode, write. They end in a
  store, so that they are known to be the same work. Cores over the sum of the parts is the rate that they allow;
* `extract` with a teacher that returns constants, for every number of workers and codec, in one thread of torch: there
  is nothing to compute, and a second thread would spin on a core that a worker has use for;
* `extract` with a ViT-B/16 of random weights (fp32 on a CPU, fp16 on a GPU), and its bare forward pass on a batch of
  the same crops.

An extraction is timed for two numbers of images, from the call to the sealed store; the difference is what counts, so
that start-up and what is in flight at the end do not. Codecs have learned before. All stores over the same images must
be the same to the last bit, the one made of the parts included: else there is no report. What is read lies in the page
cache; what is written is flushed to disk. Writes benchmarks/results/extract-throughput-DATE.json.
"""

import dataclasses
import datetime
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import torch
from PIL import Image
from throughput.report import Spent, print_report, summarise_codec, summarise_teacher, workers_of
from torch import Tensor

from caev2.demo.photographs import photographs
from caev2.extract.engines.engine import decode_workers
from caev2.extract.planning.plan import plan_store
from caev2.extract.recipes import ExtractRecipe
from caev2.extract.run import extract
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.teacher import Teacher, TeacherDescription, default_precision
from caev2.store.codecs.calibration import fit_codec
from caev2.store.codecs.catalog import codec_named
from caev2.store.images import ImageSource, open_images
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import ViewSettings, render_views
from caev2.store.records import describe_file
from caev2.store.unit_writer import StoredView, fields_of
from caev2.store.writer import StoreWriter

RESULTS = Path(__file__).parent / "results"
EXAMPLE = Path(__file__).parents[1] / "examples" / "make_random_clip.py"
VIEWS, BATCH, TOKENS, WIDTH, SIZE_PX = 8, 64, 197, 512, 224
CODECS = ("float16", "lloyd4")

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    turns: int
    images: tuple[int, int]
    """Of the two extractions with constants."""
    block_images: int
    teacher_images: tuple[int, int]
    """Of the two extractions with a ViT-B/16."""
    teacher_batch: int


FULL = Size(turns=3, images=(128, 384), block_images=128, teacher_images=(2, 10), teacher_batch=16)
QUICK = Size(turns=1, images=(32, 96), block_images=32, teacher_images=(1, 3), teacher_batch=8)
GPU = Size(turns=5, images=(512, 2048), block_images=512, teacher_images=(512, 2048), teacher_batch=256)


class ConstantTeacher:
    """Returns the same latents whatever it sees; they have the spread of a CLIP's."""

    def __init__(self, device: str):
        self.description = TeacherDescription(
            name="constant",
            sha256="0" * 64,
            image_px=SIZE_PX,
            patch_px=16,
            tokens=TOKENS,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            precision=default_precision(device),
            widths={"projected": WIDTH},
        )
        random = np.random.default_rng(0)
        spread = np.exp(random.normal(0, 0.5, WIDTH))
        rows = 0.3 * (random.standard_normal((BATCH, TOKENS, WIDTH)) * spread + 2 * random.standard_normal(WIDTH))
        self.rows = torch.from_numpy(rows.astype(np.float32)).to(device)

    def tokens(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """As many rows as there are images."""
        return {tap: self.rows[: len(images)] for tap in taps}


def spend(work: Callable[[], Made]) -> tuple[Made, Spent]:
    """Do something, and take the time."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    made = work()
    return made, Spent(time.perf_counter() - wall, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Of this process and those of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def write_images(folder: Path, count: int) -> Path:
    """Photographs of the size of ImageNet's, each another crop."""
    random, pictures = np.random.default_rng(0), list(photographs().values())
    folder.mkdir()
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        box_height = int(random.integers(min(height, width * 3 // 4) // 2, min(height, width * 3 // 4) + 1))
        box_width = box_height * 4 // 3
        top, left = (int(random.integers(room + 1)) for room in (height - box_height, width - box_width))
        cut = Image.fromarray(picture).crop((left, top, left + box_width, top + box_height))
        cut.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


def some_of(folder: Path, count: int) -> ImageSource:
    """The first images of a folder as a source of their own."""
    some = folder.with_name(f"{folder.name}-{count}")
    if not some.exists():
        some.mkdir()
        for path in sorted(folder.iterdir())[:count]:
            os.link(path, some / path.name)
    return open_images(some)


def begin_store(path: Path, source: ImageSource, recipe: ExtractRecipe, teacher: Teacher) -> StoreWriter:
    """A store in which nothing is left to learn."""
    writer = StoreWriter(path, plan_store(source, recipe, teacher), source.listing())
    for target in writer.uncalibrated():
        rows = ConstantTeacher("cpu").rows[:16].numpy()
        writer.calibrate(target, *fit_codec(codec_named(recipe.codec), rows, rows[:0]))
    return writer


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share."""

    folder: Path
    photographs: Path
    device: str
    size: Size

    def recipe(self, codec: str, **changes) -> ExtractRecipe:
        """The published views."""
        return ExtractRecipe(
            **{
                "views": ViewSettings(size_px=SIZE_PX),
                "view_count": VIEWS,
                "codec": codec,
                "block_images": self.size.block_images,
                "teacher_batch": BATCH,
                **changes,
            }
        )

    def extract(self, images: int, recipe: ExtractRecipe, teacher: Teacher) -> tuple[str, Spent]:
        """Extract the first images; the digest of the store, and what it took."""
        source, path = some_of(self.photographs, images), self.folder / "store"
        begin_store(path, source, recipe, teacher).close()
        result, spent = spend(lambda: extract(source, path, recipe, teacher=teacher, device=self.device))
        shutil.rmtree(path)
        if result.failures or result.rows_computed != images * VIEWS:
            raise click.ClickException(f"{result.rows_computed} of {images * VIEWS} rows; {result.failures[:3]}")
        return str(result.root_digest), spent

    def difference(self, images: tuple[int, int], recipe: ExtractRecipe, teacher: Teacher) -> tuple[list[str], Spent]:
        """Digests of two extractions, and what a view of the larger one takes more."""
        (one, few), (other, many) = (self.extract(count, recipe, teacher) for count in images)
        views = (images[1] - images[0]) * VIEWS
        return [one, other], Spent((many.wall_s - few.wall_s) / views, (many.cpu_s - few.cpu_s) / views)

    def parts(self, codec: str, teacher: ConstantTeacher) -> tuple[str, dict[str, Spent]]:
        """Each part of an extraction by itself: the digest of the store that comes of it, and what a view takes."""
        images, recipe, spent = self.size.images[0], self.recipe(codec), {}
        source, path = some_of(self.photographs, images), self.folder / "store"
        writer, keys, views = begin_store(path, source, recipe, teacher), source.keys, recipe.views
        tables = writer.tables("projected") if codec_named(codec).learns else {}
        rows = teacher.rows.half().cpu().numpy()

        def timed(part: str, work: Callable[[], Made]) -> Made:
            made, spent[part] = spend(work)
            return made

        data = timed("read", lambda: [source.read(number) for number in range(images)])
        decoded = timed("decode", lambda: [decode_rgb(one) for one in data])
        rendered = timed(
            "render",
            lambda: [
                list(render_views(views, key, range(VIEWS), image)) for key, image in zip(keys, decoded, strict=True)
            ],
        )
        fields = timed("hash and thumbnail", lambda: [[fields_of(*view) for view in some] for some in rendered])
        latents = [rows[number * VIEWS % BATCH :][:VIEWS] for number in range(images)]
        encoded = timed("encode", lambda: [codec_named(codec).encode(one, tables).stored() for one in latents])
        facts = [
            describe_file(one, height=image.height, width=image.width) for one, image in zip(data, decoded, strict=True)
        ]
        timed("write", lambda: write_units(writer, facts, fields, encoded))
        digest = str(writer.seal().root_digest)
        writer.close()
        shutil.rmtree(path)
        return digest, {
            name: Spent(one.wall_s / images / VIEWS, one.cpu_s / images / VIEWS) for name, one in spent.items()
        }

    def crops(self, count: int) -> Tensor:
        """A batch as the teacher sees it."""
        source = some_of(self.photographs, -(-count // VIEWS))
        pixels = [
            crop
            for number in range(len(source))
            for _, crop in render_views(
                ViewSettings(), source.keys[number], range(VIEWS), decode_rgb(source.read(number))
            )
        ]
        return torch.from_numpy(np.stack(pixels[:count])).to(self.device)


def write_units(writer: StoreWriter, facts: list, fields: list, encoded: list) -> None:
    """Checksums, files, flushes and records."""
    for block in range(writer.manifest.blocks):
        with writer.unit(block) as unit:
            for number in writer.manifest.images_of_block(block):
                rows = zip(fields[number], encoded[number], strict=True)
                unit.add_stored(facts[number], [StoredView(described, {"projected": row}) for described, row in rows])
            unit.finish()


def random_vit(folder: Path, device: str) -> Teacher:
    """A ViT-B/16 of OpenAI's kind."""
    archive = folder / "ViT-B-16.pt"
    subprocess.run([sys.executable, EXAMPLE, archive], check=True, capture_output=True)
    return load_teacher(f"openclip:ViT-B-16-quickgelu@{archive}", device=device, precision=default_precision(device))


def bare_forward(teacher: Teacher, crops: Tensor, device: str, batches: int) -> float:
    """Seconds a view: a batch that is on the device already, again and again."""
    begun = time.perf_counter()
    for _ in range(batches):
        teacher.tokens(crops, ["projected"])
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / batches / len(crops)


def measure_constants(bench: Bench, workers: Sequence[int]) -> dict[str, dict[str, list[Spent]]]:
    """By codec, what a view took of each part and with each number of workers, turn after turn.

    Raises:
        click.ClickException: Two stores of the same images differ.
    """
    teacher = ConstantTeacher(bench.device)
    found: dict[str, dict[str, list[Spent]]] = {codec: defaultdict(list) for codec in CODECS}
    for turn in range(bench.size.turns):
        for codec in CODECS:
            digest, parts = bench.parts(codec, teacher)
            for part, spent in parts.items():
                found[codec][part].append(spent)
            few, many = {digest}, set()
            for count in workers:
                digests, spent = bench.difference(bench.size.images, bench.recipe(codec, workers=count), teacher)
                found[codec][workers_of(count)].append(spent)
                few.add(digests[0])
                many.add(digests[1])
            if len(few) > 1 or len(many) > 1:
                raise click.ClickException(
                    f"{codec}: stores of the same images differ, so nothing is said: {few}, {many}"
                )
        click.echo(f"turn {turn + 1} of {bench.size.turns} is done", err=True)
    return found


def measure_teacher(bench: Bench) -> dict[str, list[float]]:
    """Seconds a view of the bare teacher and of an extraction with it, turn after turn."""
    size, teacher = bench.size, random_vit(bench.folder, bench.device)
    recipe = bench.recipe("lloyd4", teacher_batch=size.teacher_batch)
    crops = bench.crops(size.teacher_batch)
    batches = max(1, (size.teacher_images[1] - size.teacher_images[0]) * VIEWS // size.teacher_batch)
    bare_forward(teacher, crops, bench.device, 1)
    found: dict[str, list[float]] = {"bare": [], "extract": []}
    for _ in range(size.turns):
        found["bare"].append(bare_forward(teacher, crops, bench.device, batches))
        _, spent = bench.difference(size.teacher_images, recipe, teacher)
        found["extract"].append(spent.wall_s)
    return found


def machine() -> str:
    """What it ran on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{len(os.sched_getaffinity(0))} cores of {models[0].split(':')[1].strip() if models else 'a CPU'}{gpu}"


@click.command(help=__doc__)
@click.option("--device", default="cpu", show_default=True, help="Where the teacher runs.")
@click.option("--turns", type=int, help="How often everything is measured.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where files are made; on the disk that is measured.")
@click.option("--teacher/--no-teacher", default=True, help="Measure a ViT-B/16 as well.")
@click.option("--quick", is_flag=True, help="One short turn, to see that it works; writes no results.")
def main(device: str, turns: int | None, folder: Path | None, teacher: bool, quick: bool) -> None:
    size = QUICK if quick else FULL if device == "cpu" else GPU
    size = dataclasses.replace(size, turns=turns or size.turns)
    cores, default = len(os.sched_getaffinity(0)), decode_workers(None, device)
    workers = sorted({0, 1, 2, default}) if device == "cpu" else sorted({max(1, default // 2), default})
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        pictures = write_images(Path(temporary) / "photographs", max(size.images[1], size.teacher_images[1]))
        bench = Bench(Path(temporary), pictures, device, size)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        found = measure_constants(bench, workers)
        torch.set_num_threads(threads)
        constants = {codec: summarise_codec(found[codec], cores, workers) for codec in CODECS}
        vit = summarise_teacher(measure_teacher(bench), constants) if teacher else None
    report = {
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": machine(),
        "cores": cores,
        "device": device,
        "torch_threads": {"constants": 1, "teacher": torch.get_num_threads()},
        "load_average": {"before": load, "after": os.getloadavg()},
        "held_fixed": {**dataclasses.asdict(size), "views": VIEWS, "image": "500x375 JPEG, quality 90", "batch": BATCH},
        "default_workers": default,
        "constants": constants,
        "teacher": vit,
    }
    print_report(report)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        kind = "" if device == "cpu" else "-gpu"
        path = RESULTS / f"extract-throughput{kind}-{report['date']}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        click.echo(f"Written: {path.relative_to(RESULTS.parents[1])}")


if __name__ == "__main__":
    main()
