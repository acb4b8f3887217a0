"""The built-in grids: what each tests, who claims it, and the two forms that it has.

The full form is for 224 pixels and a study of one's own; `quick` is for the built-in study of `caev2 demo --study`. All
grids of a form contain one run, which is the published way on the study's own store.

What is called published is what the paper's abstract, recipes and scripts say (Zhang et al., CAE v2, 2211.09799, TMLR
2023). The code of the paper's own ablations is not public, so the rest is our question, and says so.
"""

import dataclasses
from typing import Any

from caev2.ablate.forms import CODECS, FULL, QUICK, Form
from caev2.ablate.grids import Grid, GridAxis, Value

_PAPER = "Zhang et al., CAE v2 (2211.09799; TMLR 2023)"
_OURS = "Ours"


def built_in_grids(*, quick: bool) -> dict[str, Grid]:
    """All of them by name, in one of their forms."""
    form = QUICK if quick else FULL
    grids = [
        dataclasses.replace(
            grid, recipe=form.recipe, settings=form.settings, seeds=form.seeds, stores=form.stores, quick=form.quick
        )
        for grid in (*_of_the_loss(form), *_of_the_student(form), *_of_the_store(form))
    ]
    return {grid.name: grid for grid in grids}


def _of_the_loss(form: Form) -> tuple[Grid, ...]:
    return (
        Grid(
            name="supervision",
            title="Which tokens are supervised",
            claim="Supervising the visible patches does more for the encoder than supervising the masked ones.",
            source=_PAPER,
            curves=form.quick,
            axes=(
                _axis(
                    "tokens",
                    Value(name="masked", settings={"loss.visible_weight": 0}),
                    Value(name="visible", settings={"loss.masked_weight": 0}),
                    Value(name="both"),
                ),
            ),
        ),
        Grid(
            name="distance",
            title="By which distance",
            claim="The cosine distance, the published one, does at least as well as distances that see lengths.",
            source=f"{_OURS}; published is the cosine: {_PAPER}",
            axes=(_over("distance", "loss.distance", "cosine", "mse", "smooth_l1", "l1"),),
        ),
        Grid(
            name="target",
            title="Where in the teacher the target is taken",
            claim="The projected tokens, which the published target is, teach more than those before the projection.",
            source=f"{_OURS}; published is `projected`: {_PAPER}",
            axes=(_over("target", "target", "projected", "post_norm", form.last_block),),
        ),
        Grid(
            name="target-norm",
            title="How the target is normalised, under a squared distance",
            claim="Under a squared distance, unit length is as good a target as any other normalisation.",
            source=f"{_OURS}; published is unit length under the cosine: {_PAPER}",
            axes=(
                _axis(
                    "target_norm",
                    *(
                        Value(name=f"mse {norm}", settings={"loss.distance": "mse", "loss.target_norm": norm})
                        for norm in ("l2", "none", "layer_norm", "whiten")
                    ),
                    Value(name="cosine"),
                ),
            ),
        ),
        Grid(
            name="class-token",
            title="The class token supervised or not",
            claim="Supervising the class token, one token of all, helps what is read from the encoder.",
            source=f"{_OURS}; published is a supervised class token: {_PAPER}",
            axes=(_axis("class_token", Value(name="on"), Value(name="off", settings={"loss.class_weight": 0})),),
        ),
        Grid(
            name="average",
            title="Every token alike, or every kind of token alike, by mask count",
            claim="What seems to come of the mask count comes in part of the balance of the loss, which moves with it. "
            "`group_mean` also weighs the class token, one of all tokens, as a third.",
            source=f"{_OURS}; published is `token_mean`: {_PAPER}",
            axes=(_over("average", "loss.average", "token_mean", "group_mean"), _masked(form, most=3)),
        ),
    )


def _of_the_student(form: Form) -> tuple[Grid, ...]:
    return (
        Grid(
            name="mask-size",
            title="How many patches are masked, by size of the student",
            claim="Smaller students want fewer masked patches: published are 15, 25 and 50 % for tiny, small, base.",
            source=_PAPER,
            axes=(
                _masked(form),
                _axis("student", *(Value(name=name, settings=sizes) for name, sizes in form.sizes.items())),
            ),
        ),
        Grid(
            name="mask-kind",
            title="Block masks or random ones",
            claim="Block masks, which are published, and random ones of as many patches teach alike.",
            source=f"{_OURS}; published are block masks: {_PAPER}",
            axes=(_over("kind", "mask.kind", "block", "random"),),
        ),
        Grid(
            name="regressor",
            title="With and without a regressor, and how deep",
            claim="A regressor of few blocks is enough: published are 1 block for tiny and small, 4 for base. "
            "Without one, nothing predicts masked patches: that line is visible supervision alone.",
            source=f"{_OURS}; published depths: {_PAPER}",
            axes=(_regressor(form),),
        ),
    )


def _of_the_store(form: Form) -> tuple[Grid, ...]:
    still = "no-jitter"
    return (
        Grid(
            name="views",
            title="How many stored views of an image, at equal steps",
            claim="Some stored views of each image do as well as new ones in every epoch."
            + " In so few epochs `fresh` draws the very crops of 16 views and differs in rounding alone." * form.quick,
            source=f"{_OURS}; published are new views in every epoch: {_PAPER}",
            curves=form.quick,
            axes=(
                _axis(
                    "views",
                    *(Value(name=str(count), settings={"views": count}) for count in (16, 1, 2, 4, 8)),
                    Value(name="fresh", online="fresh"),
                    order=("1", "2", "4", "8", "16", "fresh"),
                ),
            ),
        ),
        Grid(
            name="codec",
            title="Rows in fewer bytes",
            claim="Students do not notice how rows are stored.",
            source=_OURS,
            axes=(_axis("codec", Value(name="float16"), *(Value(name=one, store=f"views-{one}") for one in CODECS)),),
        ),
        Grid(
            name="jitter",
            title="Who sees the colours jittered",
            claim="Jitter that teacher and student share, which is published, teaches more than none.",
            source=f"{_OURS}; published is shared jitter: {_PAPER}",
            axes=(
                _axis(
                    "jitter",
                    Value(name="shared"),
                    Value(name="student only", store=still, settings={"student_jitter": form.student_jitter}),
                    Value(name="none", store=still),
                ),
            ),
        ),
    )


def _masked(form: Form, most: int | None = None) -> GridAxis:
    """Mask counts; at most so many, the recipe's own among them."""
    counts = [str(count) for count in form.masked]
    values = [Value(name=str(one), settings={"mask.count": one}) for one in form.masked]
    baseline = str(form.recipe_masked)
    kept = values if most is None else values[-most:] if baseline in counts[-most:] else values[:most]
    return GridAxis(name="masked", values=tuple(kept), baseline=baseline)


def _regressor(form: Form) -> GridAxis:
    none = Value(name="none", settings={"model.regressor_depth": 0, "loss.masked_weight": 0})
    depths = (Value(name=str(depth), settings={"model.regressor_depth": depth}) for depth in (1, 2, 4))
    return GridAxis(name="depth", values=(none, *depths), baseline="1" if form.quick else "4")


def _over(name: str, field: str, *values: Any) -> GridAxis:
    """An axis over one field; the first value is the baseline."""
    return _axis(name, *(Value(name=str(value), settings={field: value}) for value in values))


def _axis(name: str, *values: Value, order: tuple[str, ...] = ()) -> GridAxis:
    """An axis whose first value is the baseline, in another order if one is given."""
    ordered = sorted(values, key=lambda value: order.index(value.name)) if order else values
    return GridAxis(name=name, values=tuple(ordered), baseline=values[0].name)
