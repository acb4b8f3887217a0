"""`caev2 probe`: stage three."""

from pathlib import Path

import click

from caev2.commands.invocation import IMAGES, LOCAL, bars, common_options, example, pick_device
from caev2.store.sources.at_url import ImagesUrl


@click.command(epilog=example("probe runs/base labelled-photographs"))
@click.argument("paths", nargs=-1, required=True, type=IMAGES, metavar="[RUN] IMAGES")
@click.option("--random-init", metavar="RECIPE", default=None, help="Also an untrained student of this recipe.")
@click.option("--teacher", default=None, help="Also this teacher; for a run, where the weights of its teacher are.")
@click.option("--pixels", type=int, default=None, metavar="SIZE", help="Also the pixels themselves, at this size.")
@click.option("--only", is_flag=True, help="The run without its random start and its teacher.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["knn", "linear", "few-shot", "attentive"]),
    help="May be repeated. Default: knn and linear.",
)
@click.option("--k", type=int, default=None, help="kNN: how many neighbours vote. Default: 20.")
@click.option("--temperature", type=float, default=0.07, show_default=True, help="kNN: of the votes.")
@click.option("--shots", "shots", multiple=True, type=int, help="few-shot: images a class. Default: 1, 5 and 10.")
@click.option("--draws", type=int, default=5, show_default=True, help="few-shot: how often they are drawn.")
@click.option("--epochs", type=int, default=30, show_default=True, help="attentive: how long it is trained.")
@click.option("--token-gb", type=float, default=8.0, show_default=True, help="attentive: memory for tokens.")
@click.option("--cache", type=LOCAL, default=None, help="Where features are kept. Default: RUN/features.")
@click.option("--no-cache", is_flag=True, help="Keep no features, and use none that were kept.")
@click.option(
    "--resize",
    "resize_px",
    type=int,
    default=None,
    help="Short side before the centre crop. Default: 8/7 of the crop.",
)
@click.option("--ema", is_flag=True, help="Judge the moving average of the run's weights (ema_decay) beside them.")
@click.option("--seed", default=0, show_default=True, help="Of the held-out tenth, the heads and --random-init.")
@common_options
def probe(
    paths: tuple[Path | ImagesUrl, ...],
    random_init: str | None,
    teacher: str | None,
    pixels: int | None,
    only: bool,
    kinds: tuple[str, ...],
    k: int | None,
    temperature: float,
    shots: tuple[int, ...],
    draws: int,
    epochs: int,
    token_gb: float,
    cache: Path | None,
    no_cache: bool,
    resize_px: int | None,
    ema: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Judge frozen features on IMAGES in two parts: train/CLASS/ and val/CLASS/, or tars or tables named like that.

    For a RUN the table shows its student, beside its own random start and the teacher of its store. Without a RUN it
    shows what the options name. A run's table is also written to RUN/result.json and RUN/results/, and features are
    kept, so that another probe of the same weights and images begins at once.
    """
    from caev2.errors import ConfigError
    from caev2.eval import entrants as who
    from caev2.eval import result as outcome
    from caev2.eval import run as stage
    from caev2.eval.probes.attentive import AttentiveSettings
    from caev2.eval.probes.few_shot import FewShotSettings
    from caev2.eval.probes.protocols import KnnSettings, ProbeSettings
    from caev2.terminal import print_json

    settings = ProbeSettings(
        knn=KnnSettings(k=k, temperature=temperature),
        few_shot=FewShotSettings(shots=tuple(sorted(set(shots))) or (1, 5, 10), draws=draws),
        attentive=AttentiveSettings(epochs=epochs, warmup_epochs=epochs / 10, token_limit_bytes=int(token_gb * 10**9)),
    )
    *named, images = paths
    runs = [run for run in named if isinstance(run, Path)]
    if len(named) > 1 or len(named) > len(runs) or not (runs or random_init or teacher or pixels is not None):
        raise ConfigError(
            f"Name what to probe and the images: `caev2 probe RUN IMAGES`, with one run, not {len(named)}; or "
            "--random-init RECIPE, --teacher NAME, --pixels SIZE in place of RUN or added to it."
        )
    if (only or ema) and not runs:
        option = "--only leaves out" if only else "--ema judges"
        raise ConfigError(f"{option} what belongs to a run, and no run is named. Leave it out, or name a run.")
    entry = who.RunEntry.find(runs[0]) if runs else None
    chosen = []
    if pixels is not None:
        chosen.append(who.pixels(pixels))
    if random_init is not None:
        chosen.append(who.random_start(random_init, seed))
    if teacher is not None:
        chosen += entry.teachers(teacher) if entry and not only else [who.named_teacher(teacher)]
    if entry is not None:
        chosen += [entry.student(), entry.student(averaged=True)] if ema else [entry.student()]
    if entry is not None and not only:
        chosen.append(entry.random_start())
        chosen += [entry.teacher()] if teacher is None else []
    result = stage.probe(
        chosen,
        images,
        kinds=kinds or stage.KINDS,
        resize_px=resize_px,
        orientation=entry.orientation if entry else "exif",
        seed=seed,
        settings=settings,
        device=pick_device(device),
        progress=bars(quiet),
        run=entry.facts() if entry else None,
        cache=None if no_cache else cache or (runs[0] / "features" if runs else None),
    )
    if runs:
        outcome.save_result(result, runs[0])
    if as_json:
        print_json(result.mapping())
    else:
        outcome.print_result(result)
        if entry is not None:
            print(f"{runs[0]} at step {entry.step:,}; the table is in {runs[0] / 'result.json'}")
