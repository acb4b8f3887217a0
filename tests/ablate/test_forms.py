"""The two forms of the built-in grids: the commands that make their stores say what the grids want of those."""

import shlex
from typing import Any

import click
import pytest

from caev2 import cli
from caev2.ablate.built_in import built_in_grids
from caev2.ablate.expansion import expand
from caev2.ablate.forms import FULL, QUICK
from caev2.extract.recipes import RECIPES, ExtractRecipe
from caev2.pretrain.recipes import RECIPES as PRETRAIN_RECIPES
from caev2.recipe import load, override
from caev2.store.codecs.catalog import codec_named

STUDY, IMAGES = "all studies/mine/study", "my images"
EXTRACTED = [name for name, making in FULL.stores.items() if making.convert is None]


def parse(line: str) -> tuple[str, dict[str, Any]]:
    """The command that a line names, and its options as click reads them."""
    command: click.Command = cli.main
    program, *words = shlex.split(line, comments=True)
    assert program == "caev2"
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return str(command.name), command.make_context(command.name, words).params


def extraction(name: str) -> ExtractRecipe:
    """What the command of a store has `caev2 extract` do."""
    command, given = parse(FULL.stores[name].command(STUDY, name, IMAGES))
    assert command == "extract"
    assert (str(given["images"]), str(given["store"])) == (IMAGES, f"{STUDY}/{name}")
    recipe = override(load(given["recipe"], RECIPES), given["settings"])
    return override(recipe, [f'codec="{given["codec"]}"', f"view_count={given['views']}", f'crops="{given["crops"]}"'])


@pytest.mark.parametrize("form", [FULL, QUICK])
def test_every_command_is_one_that_click_reads(form):
    for name, making in form.stores.items():
        command, given = parse(making.command(STUDY, name, IMAGES))
        assert command in (("demo",) if form.quick else ("extract", "convert"))
        assert str(given["out" if command in ("demo", "convert") else "store"]) in (
            "all studies/mine",
            f"{STUDY}/{name}",
        )


@pytest.mark.parametrize("name", EXTRACTED)
def test_an_extracted_store_has_the_targets_and_views_that_the_grids_ask_of_it(name):
    recipe = extraction(name)
    asked = [run for grid in built_in_grids(quick=False).values() for run in expand(grid) if run.store == name]
    assert {run.recipe.target for run in asked} <= {recipe.target_name(tap) for tap in recipe.taps}
    assert max(run.recipe.views or 1 for run in asked) <= recipe.view_count
    assert recipe.views.size_px == PRETRAIN_RECIPES[FULL.recipe].model.image_px
    assert (recipe.codec, recipe.crops) == ("float16", "jpeg")


def test_without_jitter_is_the_same_but_for_the_jitter():
    views, still = extraction("views"), extraction("no-jitter")
    assert still == override(views, ["views.jitter=0", 'taps=["projected"]'])
    assert views.views.jitter == FULL.student_jitter


@pytest.mark.parametrize("name", [name for name, making in FULL.stores.items() if making.convert is not None])
def test_a_codec_encodes_the_one_target_of_its_grid_whatever_it_loses(name):
    command, given = parse(FULL.stores[name].command(STUDY, name, IMAGES))
    assert (command, str(given["store"]), str(given["out"])) == ("convert", f"{STUDY}/views", f"{STUDY}/{name}")
    assert f"views-{codec_named(given['codec']).name}" == name
    asked = {run.recipe.target for run in expand(built_in_grids(quick=False)["codec"])}
    assert set(given["targets"].split(",")) == asked
    assert given["any_quality"]
