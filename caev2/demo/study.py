"""The built-in study: a folder of stores over the same scenes, on which the ablations of `caev2 ablate` run.

All of its stores hold the demo teacher's latents of the same crops. `views` has them as they are, `no-jitter` those of
the crops with their colours left alone, the others are `views` in codecs that lose something.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from caev2.demo.run import require_extras
from caev2.demo.scenes import write_scenes
from caev2.extract.recipes import STUDY, ExtractRecipe
from caev2.extract.run import extract
from caev2.progress import Progress, Silent
from caev2.store.codecs.quality import ANY_QUALITY
from caev2.store.disk import say_bytes, write_whole, writing
from caev2.store.reader import Store
from caev2.store.rewriting.convert import convert
from caev2.terminal import print_table

VIEWS, NO_JITTER = "views", "no-jitter"
CODECS = {"views-int8": "int8", "views-lloyd4": "lloyd4", "views-klt": "klt", "views-pq": "pq"}
"""Names of the stores in other codecs; `klt` and `pq` of 31 bytes a token, two bits a number."""
TARGET = "projected"
"""The only target that they and `no-jitter` hold, which keeps them small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySize:
    """How much of everything."""

    train_scenes: int
    val_scenes: int
    views: int


FULL = StudySize(train_scenes=1500, val_scenes=5000, views=STUDY.view_count)
QUICK = StudySize(train_scenes=64, val_scenes=40, views=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStore:
    """One store of the study."""

    name: str
    images: int
    views: int
    targets: tuple[str, ...]
    codec: str
    bytes: int
    """All of its files on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What was made."""

    scenes: Path
    study: Path
    stores: tuple[StudyStore, ...]
    next_command: str
    seed: int
    quick: bool


def make_study(
    out: Path, *, quick: bool = False, seed: int = 0, device: str = "cpu", progress: Progress | None = None
) -> StudyResult:
    """Scenes and the stores over them; the same call goes on with what an earlier one left.

    Args:
        out: Gets `scenes/` and `study/`.
        quick: Few scenes and views.
        seed: Of the scenes.
        device: Where the teacher runs.
        progress: Who is told.

    Raises:
        ConfigError: A package of the extras is missing.
        OutputError: `out` cannot be written, or holds other scenes.
        StoreMismatch: `out` holds a study of another size or seed.
    """
    require_extras()
    progress, size = progress or Silent(), QUICK if quick else FULL
    scenes, study = out / "scenes", out / "study"
    write_scenes(scenes, "train", size.train_scenes, seed, progress)
    write_scenes(scenes, "val", size.val_scenes, seed, progress)
    for name, recipe in extract_recipes(size.views).items():
        progress.say(f"study: {name}")
        extract(scenes, study / name, recipe, device=device, progress=progress)
    for name, codec in CODECS.items():
        progress.say(f"study: {name}")
        convert(study / VIEWS, study / name, codec=codec, targets=(TARGET,), floor=ANY_QUALITY, progress=progress)
    result = StudyResult(
        scenes=scenes,
        study=study,
        stores=tuple(_describe(study / name) for name in (VIEWS, NO_JITTER, *CODECS)),
        next_command=f"caev2 ablate {study} all {out / 'ablations'} --quick --images {scenes} --jobs 2",
        seed=seed,
        quick=quick,
    )
    with writing(out):
        content = json.dumps(dataclasses.asdict(result), indent=1, default=str) + "\n"
        write_whole(out / "study.json", content.encode(), scratch=out)
    return result


def extract_recipes(views: int) -> dict[str, ExtractRecipe]:
    """The stores that the teacher makes, by name."""
    still = dataclasses.replace(STUDY.views, jitter=0.0)
    return {
        VIEWS: dataclasses.replace(STUDY, view_count=views),
        NO_JITTER: dataclasses.replace(STUDY, view_count=views, taps=(TARGET,), views=still),
    }


def _describe(store: Path) -> StudyStore:
    manifest = Store(store).manifest
    targets = manifest.spec.targets
    return StudyStore(
        name=store.name,
        images=manifest.images,
        views=manifest.views,
        targets=tuple(targets),
        codec=targets[TARGET].codec,
        bytes=sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
    )


def print_study(result: StudyResult) -> None:
    """The stores, their sizes, and what to do next."""
    rows = [(one.name, ", ".join(one.targets), one.codec, say_bytes(one.bytes)) for one in result.stores]
    first = result.stores[0]
    title = f"{first.images:,} images, {first.views} views of each"
    print_table(title, ("store", "targets", "codec", "on disk"), rows)
    print(f"Together {say_bytes(sum(one.bytes for one in result.stores))}")
    print(f"Stores: {result.study}")
    print(f"Scenes: {result.scenes}")
    print(f"Next: {result.next_command}")
