"""`caev2 probe`: stage three."""

from pathlib import Path

import click

from caev2.commands.invocation import bars, common_options, example, pick_device


@click.command(epilog=example("probe runs/base labelled-photographs"))
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
@common_options
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
    where = pick_device(device)
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
        progress=bars(quiet),
    )
    if subject is not None:
        stage.save_result(result, subject)
    stage.print_result(result, as_json)
