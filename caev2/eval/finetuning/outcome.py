"""What fine-tuning has come to, in the shape of every other result."""

from typing import Any

from caev2.eval.entrants import RunFacts
from caev2.eval.finetuning.identity import TuneIdentity
from caev2.eval.finetuning.model import Backbone
from caev2.eval.finetuning.recipes import FinetuneRecipe
from caev2.eval.finetuning.starts import Start
from caev2.eval.finetuning.training import AVERAGED, TuneLoop
from caev2.eval.result import Judged, ProbeResult
from caev2.pretrain.telling.log import read_log
from caev2.store.images import ImageSource

KIND = "finetune"
"""The column of a table."""


def outcome_of(
    loop: TuneLoop,
    *,
    start: Start,
    backbone: Backbone,
    train: ImageSource,
    identity: TuneIdentity,
    recipe: FinetuneRecipe,
    run: RunFacts | None,
) -> ProbeResult:
    """The accuracy of the last epoch with its intervals; that of the best one is beside it, and says what it is."""
    judging = loop.judging
    scores = {KIND + name: judging.score(said, recipe.seed) for name, said in loop.answers.items()}
    judged = Judged(
        role=start.role,
        name=start.name,
        accuracy={name: score.accuracy for name, score in scores.items()},
        bootstrap={name: score.bootstrap for name, score in scores.items() if score.bootstrap is not None},
        per_class={name: score.per_class for name, score in scores.items()},
        protocol={name: _protocol(loop, backbone, identity, name) for name in scores},
        resize_px=judging.resize_px,
        crop_px=judging.size_px,
    )
    return ProbeResult(
        subjects=(judged,),
        classes=train.classes,
        train_images=len(train),
        val_images=len(judging.source),
        train_digest=train.digest(),
        val_digest=judging.source.digest(),
        orientation=judging.orientation,
        seed=recipe.seed,
        settings={KIND: identity.recipe},
        run=run,
    )


def _protocol(loop: TuneLoop, backbone: Backbone, identity: TuneIdentity, name: str) -> dict[str, Any]:
    history = _history(loop, "ema_accuracy" if name.endswith(AVERAGED) else "accuracy")
    best = max(history, key=history.__getitem__, default=None)
    return {
        "reported": "last epoch",
        "epochs": loop.order.epochs,
        "steps": loop.state.step,
        "pooling": "mean of patches",
        "position_bias": backbone.has_position_bias,
        "drop_path": max(backbone.rates, default=0.0),
        "start": identity.start,
        "fingerprint": identity.fingerprint(),
        "best_epoch": None
        if best is None
        else {"epoch": best, "accuracy": history[best], "chosen_on": "val, the reported images: too high by design"},
        "accuracy_by_epoch": list(history.values()),
    }


def _history(loop: TuneLoop, key: str) -> dict[int, float]:
    return {record["epoch"]: record[key] for record in read_log(loop.state.out) if key in record}


def say_best(result: ProbeResult) -> str:
    """One sentence about the best epoch of a fine-tuning, and what it is worth."""
    best = result.subjects[0].protocol[KIND]["best_epoch"]
    if best is None:
        return "No epoch is in the log."
    shown = f"{100 * best['accuracy']:.1f} %"
    return (
        f"Reported is the last epoch. The best, epoch {best['epoch']} counted from 0, had {shown}; it was chosen on "
        "the very images that are reported, so that number is too high."
    )
