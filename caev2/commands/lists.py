"""`caev2 recipes` and `caev2 teachers`: what is built in."""

import dataclasses

import click

from caev2.commands.invocation import example, json_option


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


@click.command(epilog=example("teachers"))
@json_option
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
        "Any image tower of open_clip: --teacher openclip:ARCHITECTURE/TAG, or openclip:ARCHITECTURE@PATH for a file.\n"
        "Any vision transformer of timm with a class token: --teacher timm:MODEL.TAG, or timm:MODEL@PATH for a file."
    )
