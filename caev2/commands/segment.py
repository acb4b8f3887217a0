"""`caev2 segment`: segmentation on frozen patch tokens."""

from functools import partial
from pathlib import Path

import click

from caev2.commands.invocation import LOCAL, common_options, example
from caev2.commands.ranks import gpus_option
from caev2.commands.subjects import NAMES, Named, name_subjects, subject_options


@click.command(epilog=example("segment runs/base ADEChallengeData2016 --ignore 0"))
@click.argument("paths", nargs=-1, required=True, type=LOCAL, metavar=NAMES)
@click.option("--head", type=click.Choice(["linear", "upernet"]), default="linear", show_default=True)
@click.option(
    "--ignore",
    type=click.Choice(["0", "255"]),
    default="255",
    show_default=True,
    help="The number of a mask that counts for nobody; 0 for ADE20K, whose classes begin at 1.",
)
@click.option("--epochs", type=int, default=20, show_default=True, help="How long the head is trained.")
@click.option("--batch-size", type=int, default=16, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Of AdamW, at its highest.")
@click.option("--channels", type=int, default=None, help="Width of UperNet. Default: that of the tokens.")
@click.option(
    "--resize",
    "resize_px",
    type=click.IntRange(min=1),
    default=None,
    help="Short side before the centre crop. Default: no less.",
)
@click.option("--token-gb", type=float, default=8.0, show_default=True, help="Memory for tokens.")
@click.option("--cache", type=LOCAL, default=None, help="Where tokens are kept. Default: RUN/features.")
@click.option("--no-cache", is_flag=True, help="Keep no tokens, and use none that were kept.")
@click.option("--seed", default=0, show_default=True, help="Of heads, batches and --random-init.")
@subject_options
@gpus_option
@common_options
@click.pass_context
def segment(
    ctx: click.Context,
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
    size_px: int | None,
    gpus: int | None,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Train a head on frozen patch tokens and measure its masks, on IMAGES in the layout of ADE20K.

    That is images/training, images/validation, annotations/training and annotations/validation; a mask has the name of
    its image and one number a pixel. For a RUN the table shows its student, beside its own random start and the teacher
    of its store, and is also written to RUN/segmentation.json and RUN/results/; for timm:MODEL, timm:MODEL.TAG or
    timm:MODEL@FILE, a model of timm beside its random start.

    Under torchrun, or with --gpus, several processes share the images; the first trains the heads.
    """
    from caev2.commands.sharing import shared
    from caev2.eval.result import save_result
    from caev2.eval.segmentation import run as stage
    from caev2.eval.segmentation.training import SegmentationSettings

    *words, images = paths
    with shared(ctx, gpus, device, quiet) as (company, where, progress):
        settings = company.together(
            partial(
                SegmentationSettings,
                head="upernet" if head == "upernet" else "linear",
                epochs=epochs,
                batch_size=batch_size,
                lr=lr,
                channels=channels,
                token_limit_bytes=int(token_gb * 10**9),
            )
        )
        named: Named = company.together(
            partial(
                name_subjects, words, random_init=random_init, teacher=teacher, only=only, seed=seed, size_px=size_px
            )
        )
        result = stage.segment(
            named.entrants,
            images,
            settings=settings,
            ignore=0 if ignore == "0" else 255,
            resize_px=resize_px,
            orientation=named.orientation,
            seed=seed,
            device=where,
            progress=progress,
            run=named.facts(company),
            cache=None if no_cache else cache or named.cache,
            company=company,
        )
        if named.run is not None:
            company.first(partial(save_result, result, named.run, "segmentation.json"))
        if not company.ranks.is_first:
            return
    named.print_outcome(result, "segmentation.json", stage.print_segmentation, as_json)
