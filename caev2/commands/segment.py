"""`caev2 segment`: segmentation on frozen patch tokens."""

from pathlib import Path

import click

from caev2.commands.invocation import LOCAL, bars, common_options, example, pick_device


@click.command(epilog=example("segment runs/base ADEChallengeData2016 --ignore 0"))
@click.argument("paths", nargs=-1, required=True, type=LOCAL, metavar="[RUN] IMAGES")
@click.option("--head", type=click.Choice(["linear", "upernet"]), default="linear", show_default=True)
@click.option(
    "--ignore",
    type=click.Choice(["0", "255"]),
    default="255",
    show_default=True,
    help="The number of a mask that counts for nobody; 0 for ADE20K, whose classes begin at 1.",
)
@click.option("--random-init", metavar="RECIPE", default=None, help="Also an untrained student of this recipe.")
@click.option("--teacher", default=None, help="Also this teacher; for a run, where the weights of its teacher are.")
@click.option("--only", is_flag=True, help="The run without its random start and its teacher.")
@click.option("--epochs", type=int, default=20, show_default=True, help="How long the head is trained.")
@click.option("--batch-size", type=int, default=16, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Of AdamW, at its highest.")
@click.option("--channels", type=int, default=None, help="Width of UperNet. Default: that of the tokens.")
@click.option(
    "--resize", "resize_px", type=int, default=None, help="Short side before the centre crop. Default: no less."
)
@click.option("--token-gb", type=float, default=8.0, show_default=True, help="Memory for tokens.")
@click.option("--cache", type=LOCAL, default=None, help="Where tokens are kept. Default: RUN/features.")
@click.option("--no-cache", is_flag=True, help="Keep no tokens, and use none that were kept.")
@click.option("--seed", default=0, show_default=True, help="Of heads, batches and --random-init.")
@common_options
def segment(
    paths: tuple[Path, ...],
    head: str,
    ignore: str,
    random_init: str | None,
    teacher: str | None,
    only: bool,
    epochs: int,
    batch_size: int,
    lr: float,
    channels: int | None,
    resize_px: int | None,
    token_gb: float,
    cache: Path | None,
    no_cache: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Train a head on frozen patch tokens and measure its masks, on IMAGES in the layout of ADE20K.

    That is images/training, images/validation, annotations/training and annotations/validation; a mask has the name of
    its image and one number a pixel. For a RUN the table shows its student, beside its own random start and the teacher
    of its store. It is also written to RUN/segmentation.json and RUN/results/.
    """
    from caev2.errors import ConfigError
    from caev2.eval import entrants as who
    from caev2.eval.result import save_result
    from caev2.eval.segmentation import run as stage
    from caev2.eval.segmentation.training import SegmentationSettings
    from caev2.terminal import print_json

    *runs, images = paths
    if len(runs) > 1 or not (runs or random_init or teacher) or (only and not runs):
        raise ConfigError(
            f"Name what to judge and the images: `caev2 segment RUN IMAGES`, with one run, not {len(runs)}; or "
            "--random-init RECIPE or --teacher NAME in place of RUN or added to it. --only belongs to a run."
        )
    settings = SegmentationSettings(
        head="upernet" if head == "upernet" else "linear",
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        channels=channels,
        token_limit_bytes=int(token_gb * 10**9),
    )
    entry = who.RunEntry.find(runs[0]) if runs else None
    chosen = [who.random_start(random_init, seed)] if random_init else []
    if teacher is not None:
        chosen += entry.teachers(teacher) if entry and not only else [who.named_teacher(teacher)]
    if entry is not None:
        chosen.append(entry.student())
    if entry is not None and not only:
        chosen.append(entry.random_start())
        chosen += [entry.teacher()] if teacher is None else []
    result = stage.segment(
        chosen,
        images,
        settings=settings,
        ignore=0 if ignore == "0" else 255,
        resize_px=resize_px,
        orientation=entry.orientation if entry else "exif",
        seed=seed,
        device=pick_device(device),
        progress=bars(quiet),
        run=entry.facts() if entry else None,
        cache=None if no_cache else cache or (runs[0] / "features" if runs else None),
    )
    if runs:
        save_result(result, runs[0], "segmentation.json")
    if as_json:
        print_json(result.mapping())
    else:
        stage.print_segmentation(result)
        if entry is not None:
            print(f"{runs[0]} at step {entry.step:,}; the table is in {runs[0] / 'segmentation.json'}")
