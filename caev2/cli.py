"""The command line: parse, call one function, print.

torch and everything that brings it are imported inside the commands, so that `--help` answers at once.
"""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from caev2 import __version__
from caev2.errors import Caev2Error

if TYPE_CHECKING:
    from caev2.terminal import Bars

REFUSED = 2
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended: 128 + SIGINT


class _Commands(click.Group):
    """Turns expected failures into one paragraph and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Caev2Error as problem:
            _leave(ctx, str(problem), REFUSED)
        except KeyboardInterrupt:
            _leave(ctx, "interrupted. What was finished is kept; the same command goes on.", INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


def _leave(ctx: click.Context, message: str, status: int) -> NoReturn:
    if ctx.find_root().obj is not None:
        ctx.find_root().obj.finish()  # or the bar would be drawn over the message
    click.echo("caev2: " + " ".join(message.split()), err=True)
    sys.exit(status)


def _bars(quiet: bool) -> "Bars":
    """The bars of this command, which it closes however it ends."""
    from caev2.terminal import Bars

    ctx = click.get_current_context().find_root()
    ctx.obj = Bars(quiet)
    return ctx.obj


def _example(text: str) -> str:
    """The end of a command's help."""
    return f"\b\nExample:\n  caev2 {text}"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_example("demo --quick"))
@click.version_option(__version__, prog_name="caev2")
def main() -> None:
    """CAE v2 pre-training on stored CLIP targets: extract once, train without CLIP, probe."""


def _common(command: Callable) -> Callable:
    """The options of every command that takes time."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result."),
        click.option("--quiet", is_flag=True, help="No progress bars."),
        click.option(
            "--device",
            default=None,
            help="Where to compute: cpu, cuda, cuda:1. Default: a GPU if there is one.",
        ),
    ):
        command = option(command)
    return command


_settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting of the recipe; may be repeated.",
)


def _device(name: str | None) -> str:
    import torch

    from caev2.errors import ConfigError

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"--device cannot be {name!r}. Give cpu, cuda, or cuda:1 for the second GPU.")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise ConfigError(
            f"--device {name!r} cannot be used: {str(problem).splitlines()[0]}. Try --device cpu."
        ) from None
    return name


def _print(result: Any, as_json: bool, title: str) -> None:
    from caev2.terminal import print_facts, print_json

    facts = result if isinstance(result, dict) else dataclasses.asdict(result)
    if as_json:
        print_json(facts)
    else:
        print_facts(title, facts)


@main.command(epilog=_example("demo --quick"))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("caev2-demo"),
    show_default=True,
    help="Folder of the results.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Fewer scenes and steps: shows that everything works, not that the student learns.",
)
@click.option("--seed", default=0, show_default=True, help="Of scenes, weights, order and masks.")
@_common
def demo(out: Path, quick: bool, seed: int, as_json: bool, quiet: bool, device: str | None) -> None:
    """Extract, pre-train and probe on built-in scenes; ends with a table and pictures."""
    from caev2.demo.run import print_demo, run_demo
    from caev2.terminal import print_json

    result = run_demo(out, quick=quick, seed=seed, device=_device(device), progress=_bars(quiet))
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        print_demo(result)


@main.command(epilog=_example("extract photographs photographs.caev2 --recipe base-300e"))
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--recipe", default="base-300e", show_default=True, help="Built-in name, or a TOML file.")
@click.option("--teacher", default=None, help="Overrides the recipe's teacher.")
@click.option("--views", type=int, default=None, help="Views of each image.")
@click.option("--dry-run", is_flag=True, help="Print rows, bytes and free disk; write nothing.")
@_settings
@_common
def extract(
    images: Path,
    store: Path,
    recipe: str,
    teacher: str | None,
    views: int | None,
    dry_run: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Run a frozen teacher once over deterministic crops of IMAGES and keep its latents in STORE."""
    from caev2.extract import run
    from caev2.extract.catalog import load_teacher
    from caev2.extract.recipes import RECIPES
    from caev2.recipe import load, override
    from caev2.store.disk import say_bytes
    from caev2.store.images import open_images

    chosen = override(load(recipe, RECIPES), settings)
    named = {"teacher": teacher, "view_count": views}
    chosen = dataclasses.replace(chosen, **{name: value for name, value in named.items() if value is not None})
    if dry_run:
        where = _device(device)
        planned = run.plan(
            open_images(images),
            store,
            chosen,
            load_teacher(chosen.teacher, device=where, precision=chosen.precision),
        )
        facts = dataclasses.asdict(planned)
        if not as_json:
            facts |= {name: say_bytes(facts[name]) for name in ("bytes", "free_bytes")}
        _print(facts, as_json, f"{store} would hold")
        return
    result = run.extract(images, store, chosen, device=_device(device), progress=_bars(quiet))
    facts = dataclasses.asdict(result)
    if not as_json:
        facts["failures"] = _list_failures(result.failures)
    _print(facts, as_json, f"Extracted {store}")


def _list_failures(failures: tuple[tuple[str, str], ...]) -> str:
    shown = "; ".join(f"{key}: {reason}" for key, reason in failures[:3])
    return f"{len(failures)}" + (f" ({shown}{'; ...' if len(failures) > 3 else ''})" if failures else "")


@main.group(epilog=_example("store info photographs.caev2"))
def store() -> None:
    """Look into a store and check it."""


@store.command("info", epilog=_example("store info photographs.caev2"))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result.")
def store_info(store: Path, as_json: bool) -> None:
    """Describe a store on one screen."""
    from caev2.store.describe import describe_store
    from caev2.store.disk import say_bytes
    from caev2.store.reader import Store
    from caev2.terminal import print_facts, print_json

    described = describe_store(Store(store, allow_unsealed=True))
    if as_json:
        print_json(described)
        return
    targets, failures = described.pop("targets"), described.pop("failures")
    described["undecodable"] = _list_failures(tuple((key, reason) for key, reason in failures))
    described["view_settings"] = ", ".join(f"{name} {value}" for name, value in described["view_settings"].items())
    print_facts("Store", described)
    for name, target in targets.items():
        teacher = target.pop("teacher")
        target["bytes"] = say_bytes(target["bytes"])
        target["teacher"] = f"{teacher['name']}, {teacher['precision']}, sha256 {teacher['sha256'][:16]}..."
        print_facts(f"Target {name}", target)


@store.command("verify", epilog=_example("store verify photographs.caev2 --images photographs"))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), default=None, help="Also compare the pixels of every view.")
@click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def store_verify(store: Path, images: Path | None, as_json: bool, quiet: bool) -> None:
    """Compare every file with its digest, every row with its checksum; exit 2 if anything differs."""
    from caev2.store.images import open_images
    from caev2.store.reader import Store
    from caev2.store.replay import ViewReplay
    from caev2.store.verify import verify_images, verify_store

    opened = Store(store, allow_unsealed=True)
    source = None if images is None else open_images(images)
    report = dataclasses.asdict(verify_store(opened, _bars(quiet)))
    if source is not None and not report["problems"]:
        report["problems"] = verify_images(opened, ViewReplay(opened, source), _bars(quiet))
    report["state"] = opened.manifest.state
    problems = report["problems"]
    if not as_json:
        report["problems"] = len(problems)
    _print(report, as_json, f"Verified {store}")
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    if problems:
        sys.exit(REFUSED)


@main.command(epilog=_example("pretrain photographs.caev2 runs/base --images photographs --recipe base-300e"))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), default=None, help="What the store was extracted from.")
@click.option("--recipe", default="base-300e", show_default=True, help="Built-in name, or a TOML file.")
@click.option("--resume", type=click.Choice(["auto", "never"]), default="auto", show_default=True)
@click.option("--dry-run", is_flag=True, help="Print steps and parameters; write nothing.")
@_settings
@_common
def pretrain(
    store: Path,
    run: Path,
    images: Path | None,
    recipe: str,
    resume: Literal["auto", "never"],
    dry_run: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Train a student against the targets in STORE, without loading a teacher; checkpoints and log go to RUN."""
    from caev2.errors import ConfigError
    from caev2.pretrain import run as stage
    from caev2.pretrain.recipes import RECIPES
    from caev2.recipe import load, override
    from caev2.store.reader import Store

    chosen = override(load(recipe, RECIPES), settings)
    opened = Store(store)
    if dry_run:
        _print(stage.plan(chosen, opened, run), as_json, f"{run} would be")
        return
    if images is None:
        raise ConfigError(f"{store} holds targets but no pixels. Give --images, the folder it was extracted from.")
    try:
        result = stage.pretrain(
            opened,
            run,
            chosen,
            images=images,
            device=_device(device),
            resume=resume,
            progress=_bars(quiet),
        )
    except stage.Interrupted as left:
        _leave(click.get_current_context(), str(left), 128 + left.signal_number)
    _print(result, as_json, f"Trained {run}")


@main.command(epilog=_example("probe runs/base labelled-photographs"))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[RUN] IMAGES")
@click.option("--random-init", metavar="RECIPE", default=None, help="Probe an untrained student of this recipe.")
@click.option("--teacher", default=None, help="Probe a teacher.")
@click.option("--pixels", type=int, default=None, metavar="SIZE", help="Probe the pixels themselves, at this size.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["knn", "linear"]), help="Default: both.")
@click.option(
    "--resize",
    "resize_px",
    type=int,
    default=None,
    help="Short side before the centre crop. Default: 8/7 of the crop.",
)
@click.option("--seed", default=0, show_default=True, help="Of the held-out tenth, the heads and a random start.")
@_common
def probe(
    paths: tuple[Path, ...],
    random_init: str | None,
    teacher: str | None,
    pixels: int | None,
    kinds: tuple[str, ...],
    resize_px: int | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Judge frozen features on IMAGES, a folder with train/CLASS/ and val/CLASS/ below it."""
    from caev2.errors import ConfigError
    from caev2.eval import run as stage
    from caev2.eval.subjects import open_subject

    *run, images = paths
    given = [*run, *(choice for choice in (random_init, teacher, pixels) if choice is not None)]
    if len(given) != 1:
        raise ConfigError(
            f"Name one thing to probe and the images, not {len(given)}: `caev2 probe RUN IMAGES`, or --random-init "
            "RECIPE, --teacher NAME or --pixels SIZE in place of RUN."
        )
    subject = run[0] if run else None
    where = _device(device)
    features = open_subject(
        run=subject, random_init=random_init, teacher=teacher, pixels=pixels, seed=seed, device=where
    )
    result = stage.probe(
        features,
        images,
        kinds=kinds or ("knn", "linear"),
        resize_px=resize_px,
        seed=seed,
        device=where,
        progress=_bars(quiet),
    )
    if subject is not None:
        stage.save_result(result, subject)
    stage.print_result(result, as_json)


@main.command("import", epilog=_example("import cae_v2_base.pth runs/official"))
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result.")
def import_checkpoint(file: Path, run: Path, as_json: bool) -> None:
    """Turn an official CAE v2 checkpoint, whole or encoder only, into a run that can be probed."""
    from caev2.pretrain.adopt import adopt_checkpoint

    _print(adopt_checkpoint(file, run), as_json, f"Imported {file}")


@main.command(epilog=_example("recipes"))
@click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result.")
def recipes(as_json: bool) -> None:
    """List the built-in recipes."""
    from caev2.pretrain.recipes import RECIPES
    from caev2.recipe import to_mapping
    from caev2.terminal import print_json, print_table

    if as_json:
        print_json({name: to_mapping(recipe) for name, recipe in RECIPES.items()})
        return
    rows = [
        (
            name,
            f"{recipe.model.image_px}/{recipe.model.patch_px}",
            f"{recipe.model.width}x{recipe.model.depth}",
            f"{recipe.model.regressor_width}x{recipe.model.regressor_depth}",
            f"{recipe.mask.count}/{recipe.model.patches}",
            str(recipe.epochs),
            str(recipe.batch_size),
            f"{recipe.optimizer.lr:g}",
        )
        for name, recipe in RECIPES.items()
    ]
    print_table("Recipes", ("name", "pixels", "encoder", "regressor", "masked", "epochs", "batch", "lr"), rows)


@main.command(epilog=_example("teachers"))
@click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result.")
def teachers(as_json: bool) -> None:
    """List the built-in teachers, and how to name others."""
    from caev2.extract.known import TEACHERS
    from caev2.terminal import print_facts, print_json

    if as_json:
        print_json({teacher.name: dataclasses.asdict(teacher) for teacher in TEACHERS})
        return
    for teacher in TEACHERS:
        facts = dataclasses.asdict(teacher) | {"taps": ", ".join(teacher.taps)}
        print_facts(facts.pop("name"), facts)
    click.echo(
        "Any image tower of open_clip: --teacher openclip:ARCHITECTURE/TAG, or openclip:ARCHITECTURE@PATH for a file."
    )


if __name__ == "__main__":
    main()
