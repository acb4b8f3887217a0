"""What docs/from-official.md says of this package is so: its settings exist, and have the values of its tables."""

import ast
import dataclasses
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from caev2 import cli
from caev2.eval.finetuning.recipes import RECIPES as FINETUNE_RECIPES
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.pretrain.recipes import RECIPES as PRETRAIN_RECIPES

PAGE = (Path(__file__).parents[1] / "docs" / "from-official.md").read_text(encoding="utf-8")
RECIPES: dict[str, Any] = {"extract": EXTRACT_RECIPES, "pretrain": PRETRAIN_RECIPES, "finetune": FINETUNE_RECIPES}
NAMES = {"extract": "{}-300e", "pretrain": "{}-300e", "finetune": "{}"}
"""Of the recipe of a size."""
SETTING = re.compile(r"`(extract|pretrain|finetune) ([a-z_.]+)`")
COMMANDS = ("extract", "pretrain", "probe", "finetune", "import")


def tables() -> dict[str, list[list[str]]]:
    """The rows of every table but its head, as cells, by heading."""
    found: dict[str, list[list[str]]] = {}
    for section in PAGE.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        rows = [line for line in body.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        rules = {place for place, row in enumerate(cells) if set(row[0]) <= {"-"}}
        found[heading] = [row for place, row in enumerate(cells) if not {place, place + 1} & rules]
    return found


def recipe_of(stage: str, size: str) -> Any:
    return RECIPES[stage][NAMES[stage].format(size)]


def test_the_page_has_its_tables():
    sizes = {heading: len(rows) for heading, rows in tables().items()}
    assert sizes["Numbers of the scripts"] > 20
    assert sizes["Pre-training flags"] > 40
    assert sizes["Linear probing flags"] > 8
    assert sizes["Fine-tuning flags"] > 25
    assert sizes["What differs on purpose"] > 5


@pytest.mark.parametrize(("stage", "setting"), sorted(set(SETTING.findall(PAGE))))
def test_every_setting_of_the_page_is_one_of_a_recipe(stage, setting):
    *parents, name = setting.split(".")
    owner = reduce(getattr, parents, recipe_of(stage, "base"))
    assert name in {field.name for field in dataclasses.fields(owner)}


def rows_of_numbers() -> list[list[str]]:
    return [row for name in ("Numbers of the scripts", "Fine-tuning flags") for row in tables()[name] if len(row) == 5]


@pytest.mark.parametrize("row", rows_of_numbers(), ids=lambda row: row[0])
def test_the_recipes_have_the_numbers_of_the_scripts(row):
    _, *published, here = row
    ((stage, setting),) = SETTING.findall(here)
    values = [reduce(getattr, setting.split("."), recipe_of(stage, size)) for size in ("tiny", "small", "base")]
    assert values == [ast.literal_eval(number) for number in published]


def test_every_row_of_flags_says_what_became_of_it():
    for heading in ("Pre-training flags", "Linear probing flags", "Fine-tuning flags"):
        for published, *_, here in tables()[heading]:
            told = (
                SETTING.search(here)
                or "--" in here
                or re.search(r"fixed|last epoch|dropped|chosen|caev2|one number|class", here)
            )
            assert told, published


def test_every_option_in_the_column_of_ours_is_one():
    known = {option for name in COMMANDS for parameter in cli.main.commands[name].params for option in parameter.opts}
    for heading in ("Pre-training flags", "Linear probing flags", "Fine-tuning flags"):
        for *_, here in tables()[heading]:
            assert set(re.findall(r"--[a-z-]+", here)) <= known


def test_settings_of_training_that_the_published_code_has_too_are_all_on_the_page():
    named = {setting for stage, setting in SETTING.findall(PAGE) if stage == "pretrain"}
    recipe = PRETRAIN_RECIPES["base-300e"]
    for part in ("optimizer", "mask", "model"):
        settings = {f"{part}.{field.name}" for field in dataclasses.fields(getattr(recipe, part))}
        ours_alone = {"mask.max_aspect", "model.patch_px", "model.mlp_ratio"}  # built into the published code
        assert settings - ours_alone <= named
