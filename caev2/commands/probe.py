"""`caev2 probe`: stage three."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caev2.commands.invocation import IMAGES, LOCAL, common_options, example
from caev2.commands.ranks import gpus_option
from caev2.commands.subjects import NAMES, Named, name_subjects, subject_options
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.eval.probes.protocols import ProbeSettings


@click.command(epilog=example("probe runs/base labelled-photographs"))
@click.argument("paths", nargs=-1, required=True, type=IMAGES, metavar=NAMES)
@click.option("--pixels", type=int, default=None, metavar="SIZE", help="Also the pixels themselves, at this size.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["knn", "linear", "few-shot", "attentive", "official-linear"]),
    help="May be repeated. Default: knn and linear.",
)
@click.option(
    "--protocol",
    type=click.Choice(["fast", "official"]),
    default="fast",
    show_default=True,
    help="linear: solved on features computed once; or the published training, which is --kind official-linear.",
)
@click.option("--k", type=int, default=None, help="kNN: how many neighbours vote. Default: 20.")
@click.option("--temperature", type=float, default=0.07, show_default=True, help="kNN: of the votes.")
@click.option("--shots", "shots", multiple=True, type=int, help="few-shot: images a class. Default: 1, 5 and 10.")
@click.option("--draws", type=int, default=5, show_default=True, help="few-shot: how often they are drawn.")
@click.option(
    "--epochs",
    type=int,
    default=None,
    help="attentive, official-linear: how long they are trained. Default: 30 and 90.",
)
@click.option(
    "--batch-size",
    type=int,
    default=None,
    help="official-linear: images a step. Default: 8192, of thin encoders 16384, or less where train images are few.",
)
@click.option("--base-lr", type=float, default=0.1, show_default=True, help="official-linear: for 256 images a step.")
@click.option("--token-gb", type=float, default=8.0, show_default=True, help="attentive: memory for tokens.")
@click.option("--cache", type=LOCAL, default=None, help="Where features are kept. Default: RUN/features.")
@click.option("--no-cache", is_flag=True, help="Keep no features, and use none that were kept.")
@click.option(
    "--resize",
    "resize_px",
    type=click.IntRange(min=1),
    default=None,
    help="Short side before the centre crop. Default: 8/7 of the crop.",
)
@click.option("--ema", is_flag=True, help="Judge the moving average of the run's weights (ema_decay) beside them.")
@click.option("--seed", default=0, show_default=True, help="Of the held-out tenth, the heads and --random-init.")
@subject_options
@gpus_option
@common_options
@click.pass_context
def probe(
    ctx: click.Context,
    paths: tuple[Path | ImagesUrl, ...],
    random_init: str | None,
    teacher: str | None,
    pixels: int | None,
    only: bool,
    kinds: tuple[str, ...],
    protocol: str,
    k: int | None,
    temperature: float,
    shots: tuple[int, ...],
    draws: int,
    epochs: int | None,
    batch_size: int | None,
    base_lr: float,
    token_gb: float,
    cache: Path | None,
    no_cache: bool,
    resize_px: int | None,
    ema: bool,
    seed: int,
    size_px: int | None,
    gpus: int | None,
    as_json: bool,
    quiet: bool,
    device: str | None,
) -> None:
    """Judge frozen features on IMAGES in two parts: train/CLASS/ and val/CLASS/, or tars or tables named like that.

    For a RUN the table shows its student, beside its own random start and the teacher of its store; for a FILE, an
    official checkpoint or what `caev2 export` wrote, its encoder beside a random start; for timm:MODEL,
    timm:MODEL.TAG or timm:MODEL@FILE, a model of timm beside its random start. Without them it shows what the options
    name. A run's table is also written to RUN/result.json and RUN/results/, and features are kept, so that another
    probe of the same weights and images begins at once.

    Under torchrun, or with --gpus, several processes share the images; the numbers are those of one.
    """
    from caev2.commands.sharing import shared
    from caev2.eval import result as outcome
    from caev2.eval import run as stage

    *words, images = paths
    with shared(ctx, gpus, device, quiet) as (company, where, progress):
        settings = company.together(
            partial(
                _settings,
                k=k,
                temperature=temperature,
                shots=shots,
                draws=draws,
                epochs=epochs,
                batch_size=batch_size,
                base_lr=base_lr,
                token_gb=token_gb,
            )
        )
        named: Named = company.together(
            partial(
                name_subjects,
                words,
                random_init=random_init,
                teacher=teacher,
                only=only,
                seed=seed,
                size_px=size_px,
                pixels=pixels,
                ema=ema,
            )
        )
        result = stage.probe(
            named.entrants,
            images,
            kinds=_by_protocol(kinds or stage.KINDS, protocol),
            resize_px=resize_px,
            orientation=named.orientation,
            seed=seed,
            settings=settings,
            device=where,
            progress=progress,
            run=named.facts(company),
            cache=None if no_cache else cache or named.cache,
            company=company,
        )
        if named.run is not None:
            company.first(partial(outcome.save_result, result, named.run))
        if not company.ranks.is_first:
            return
    named.print_outcome(result, "result.json", outcome.print_result, as_json)


def _by_protocol(kinds: tuple[str, ...], protocol: str) -> tuple[str, ...]:
    """The kinds, the linear one by the protocol that was asked for, each once."""
    if protocol == "official" and not {"linear", "official-linear"} & set(kinds):
        raise click.UsageError("--protocol official is about the linear probe. Add --kind linear, or leave it out.")
    named = {"linear": "official-linear"} if protocol == "official" else {}
    return tuple(dict.fromkeys(named.get(kind, kind) for kind in kinds))


def _settings(
    *,
    k: int | None,
    temperature: float,
    shots: tuple[int, ...],
    draws: int,
    epochs: int | None,
    batch_size: int | None,
    base_lr: float,
    token_gb: float,
) -> "ProbeSettings":
    from caev2.eval.probes.attentive import AttentiveSettings
    from caev2.eval.probes.few_shot import FewShotSettings
    from caev2.eval.probes.learner import OfficialSettings
    from caev2.eval.probes.protocols import KnnSettings, ProbeSettings

    attentive = 30 if epochs is None else epochs
    return ProbeSettings(
        knn=KnnSettings(k=k, temperature=temperature),
        few_shot=FewShotSettings(shots=tuple(sorted(set(shots))) or (1, 5, 10), draws=draws),
        attentive=AttentiveSettings(
            epochs=attentive, warmup_epochs=attentive / 10, token_limit_bytes=int(token_gb * 10**9)
        ),
        official_linear=OfficialSettings(
            epochs=90 if epochs is None else epochs, batch_size=batch_size, base_lr=base_lr
        ),
    )
