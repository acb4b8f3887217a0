"""`caev2 recipes` and `caev2 teachers`: what is built in."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caev2.commands.invocation import LOCAL, example, json_option, print_result

if TYPE_CHECKING:
    from caev2.extract.teachers.known import KnownTeacher


@click.command(epilog=example("recipes"))
@json_option
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


@click.command(epilog=example("teachers timm:vit_base_patch14_dinov2.lvd142m"))
@click.argument("name", required=False)
@click.option("--fetch", "fetched", metavar="NAME", help="Put this teacher's weights into the cache, and check them.")
@click.option("--cache", type=LOCAL, help="Another folder for weights than the cache of their own client.")
@json_option
def teachers(name: str | None, fetched: str | None, cache: Path | None, as_json: bool) -> None:
    """List well-known teachers; describe the one that is named, or fetch its weights.

    A teacher is described by its name alone: nothing is downloaded.
    """
    if name is not None and fetched is not None:
        raise click.UsageError("Give a name to describe or --fetch a name, not both.", click.get_current_context())
    if fetched is not None:
        _fetch(fetched, cache, as_json)
    elif name is not None:
        _describe(name, cache, as_json)
    else:
        _list(as_json)


def _list(as_json: bool) -> None:
    from caev2.extract.teachers.known import TEACHERS
    from caev2.terminal import print_facts, print_json

    if as_json:
        print_json({each.name: _facts(each) | {"widths": each.widths, "taps": each.taps} for each in TEACHERS})
        return
    for each in TEACHERS:
        shown = {key: value for key, value in _facts(each).items() if value is not None}
        print_facts(shown.pop("name"), shown | {"taps": say_taps(each.widths)})
    click.echo(
        "Any image tower of open_clip that is a vision transformer: --teacher openclip:ARCHITECTURE/TAG, or\n"
        "openclip:ARCHITECTURE@PATH for a file. Any of timm's vision transformers: --teacher timm:MODEL.TAG, or\n"
        "timm:MODEL@PATH for a file. `caev2 teachers NAME` describes one, `caev2 teachers --fetch NAME` fetches it."
    )


def _facts(teacher: "KnownTeacher") -> dict[str, Any]:
    facts = dataclasses.asdict(teacher)
    del facts["depth"], facts["width"], facts["projected"]  # said tap by tap
    return facts


def _describe(name: str, cache: Path | None, as_json: bool) -> None:
    from caev2.extract.teachers.describe import describe_teacher
    from caev2.terminal import print_facts, print_json

    facts = dataclasses.asdict(describe_teacher(name, cache=cache))
    if as_json:
        print_json(facts)
        return
    taps, tags = say_taps(facts.pop("widths")), facts.pop("tags")
    pixels = "as the tag says" if facts["mean"] is None else "({}, {}, {})"
    facts |= {key: pixels.format(*facts[key] or ()) for key in ("mean", "std")}
    facts |= {"cached": facts["cached"] or "no", "taps": taps}
    print_facts(facts.pop("name"), facts | ({"tags": ", ".join(tags)} if tags else {}))


def _fetch(name: str, cache: Path | None, as_json: bool) -> None:
    from caev2.extract.teachers.describe import fetch_teacher

    fetched = dataclasses.asdict(fetch_teacher(name, cache=cache))
    print_result(fetched, as_json, fetched["name"] if as_json else fetched.pop("name"))


def say_taps(widths: Mapping[str, int]) -> str:
    """Taps with their widths; blocks, which are many and all alike, as a range."""
    blocks = [tap for tap in widths if tap.startswith("block:")]
    said = [f"{tap} ({widths[tap]})" for tap in widths if tap not in blocks]
    return ", ".join([*said, f"{blocks[0]} to {blocks[-1]} ({widths[blocks[0]]})"])
