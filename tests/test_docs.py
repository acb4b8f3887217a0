"""The pages tell the truth: commands exist, the tree is the tree, and the store's reference can be read by."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from pyarrow import parquet

from caev2 import cli
from caev2.ablate.expansion import expand
from caev2.ablate.grid_files import read_grid
from caev2.eval.finetuning.recipes import RECIPES as FINETUNE_RECIPES
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.pretrain.recipes import RECIPES as PRETRAIN_RECIPES
from caev2.recipe import load, override
from caev2.store.layout import CHECKSUM, VIEW_FIELDS, shard_path, unit_path
from caev2.store.manifest import FILE_NAME, read_manifest
from caev2.store.reader import Store
from tests.store.made_up import BLOCK, DAMAGED, IMAGES, VIEWS, make_images, make_latents, write_store

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FORMAT_PAGE = (ROOT / "docs" / "store-format.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPES = {"extract": EXTRACT_RECIPES, "pretrain": PRETRAIN_RECIPES, "finetune": FINETUNE_RECIPES}


def commands_of(text: str) -> list[str]:
    """Whole command lines of the fenced blocks, continued lines joined, prompts removed."""
    joined = "\n".join(body.replace("\\\n", " ") for _, body in FENCE.findall(text))
    return re.findall(r"^(?:\$ )?(caev2 .*)$", joined, re.MULTILINE)


def mentions_of(text: str) -> list[str]:
    """Commands in running text, often without their arguments."""
    return re.findall(r"`(caev2 [^`]+)`", FENCE.sub("", text))


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line names, and the words after it."""
    command: click.Command = cli.main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    return command, words


def options_of(command: click.Command) -> set[str]:
    built_in = {*cli.main.context_settings["help_option_names"]}
    return built_in | {option for parameter in command.params for option in parameter.opts}


def parse(line: str) -> tuple[click.Command, dict[str, Any]]:
    command, words = find_command(shlex.split(line, comments=True)[1:])
    return command, command.make_context(command.name, words).params


def on_pages(find) -> list:
    found = [(page, line) for page in PAGES for line in find(page.read_text(encoding="utf-8"))]
    return [pytest.param(line, id=f"{page.name}: {line}") for page, line in found]


@pytest.mark.parametrize("line", on_pages(commands_of))
def test_every_command_of_a_block_parses_with_its_recipe_and_settings(line):
    command, values = parse(line)
    if recipes := RECIPES.get(command.name or ""):
        override(load(values["recipe"], recipes), values["settings"])


@pytest.mark.parametrize("line", on_pages(mentions_of))
def test_every_command_in_running_text_exists_with_its_options(line):
    command, words = find_command(shlex.split(line)[1:])
    unknown = {word.partition("=")[0] for word in words if word.startswith("-")} - options_of(command)
    assert not unknown


@pytest.mark.parametrize("line", ["caev2 extract A", "caev2 prtrain A B", "caev2 extract A B --layout hdf5"])
def test_a_command_that_does_not_exist_would_be_found(line):
    with pytest.raises((click.UsageError, AssertionError)):
        parse(line)


def test_every_command_is_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    groups = {name: command for name, command in cli.main.commands.items() if isinstance(command, click.Group)}
    names = {name for name in cli.main.commands if name not in groups}
    names |= {f"{group} {name}" for group, command in groups.items() for name in command.commands}
    assert {name for name in names if f"caev2 {name}" not in text} == set()


def toml_of_the_pages() -> list[str]:
    return [body for page in PAGES for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "toml"]


def test_grid_files_of_the_pages_can_be_read(tmp_path):
    bodies = [body for body in toml_of_the_pages() if "[[axis]]" in body]
    assert bodies
    for number, body in enumerate(bodies):
        file = tmp_path / f"{number}.toml"
        file.write_text(body, encoding="utf-8")
        assert expand(read_grid(file))


def test_recipe_files_of_the_pages_can_be_read(tmp_path):
    bodies = [body for body in toml_of_the_pages() if "[[axis]]" not in body]
    assert bodies
    for number, body in enumerate(bodies):
        file = tmp_path / f"{number}.toml"
        file.write_text(body, encoding="utf-8")
        recipe = load(str(file), PRETRAIN_RECIPES)
        assert recipe not in PRETRAIN_RECIPES.values(), "the file changes nothing"


def tree_of(text: str) -> list[str]:
    """The paths of the tree in the README: a name and a caption a line, two spaces a level."""
    block = text.partition("## The tree")[2]
    _, body = FENCE.findall(block)[0]
    paths, folders = [], []
    for line in body.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        paths.append("".join(folders))
    return paths


def test_the_tree_names_only_what_exists():
    paths = tree_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [path for path in paths if (ROOT / path).is_dir() != path.endswith("/")] == []


def test_the_tree_names_every_package():
    packages = {f"caev2/{path.parent.name}/" for path in (ROOT / "caev2").glob("*/__init__.py")}
    assert packages
    assert packages <= set(tree_of((ROOT / "README.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    return write_store(folder / "store", make_images(folder / "images"), make_latents())


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the Python of docs/store-format.md defines."""
    names: dict[str, Any] = {}
    for language, body in FENCE.findall(FORMAT_PAGE):
        if language == "python":
            exec(compile(body, "docs/store-format.md", "exec"), names)
    return names


def test_the_decoder_of_the_page_reads_what_was_written(store, page):
    latents = make_latents()
    for view in range(VIEWS):
        for image in set(range(IMAGES)) - {DAMAGED}:
            row = page["read_row"](store, "projected", view, image)
            assert np.array_equal(row, latents[image, view]), (view, image)
        with pytest.raises(AssertionError, match="could not be decoded"):
            page["read_row"](store, "projected", view, DAMAGED)


@pytest.mark.parametrize("codec", ["int8", "lloyd4", "klt:3", "pq:2"])
def test_the_decoder_of_the_page_decodes_as_the_store_does(codec, page, tmp_path):
    path = write_store(tmp_path / "store", make_images(tmp_path / "images"), make_latents(), codec)
    for image in set(range(IMAGES)) - {DAMAGED}:
        row = page["read_row"](path, "projected", 1, image)
        np.testing.assert_allclose(row, Store(path).read_rows("projected", 1, [image])[0], rtol=1e-5, atol=1e-6)


def test_the_decoder_of_the_page_notices_exchanged_shards(store, page):
    one, other = (store / shard_path("projected", view, 0) for view in (0, 1))
    sound = one.read_bytes()
    one.write_bytes(other.read_bytes())
    try:
        with pytest.raises(AssertionError, match="not the bytes that were written"):
            page["read_row"](store, "projected", 0, BLOCK - 1)
    finally:
        one.write_bytes(sound)


def test_the_digest_of_the_page_holds_for_manifest_and_records(store, page):
    manifest = read_manifest(store)
    content = page["check_digest"](store / FILE_NAME)
    assert content["fingerprint"] == manifest.spec.fingerprint()
    assert [page["check_digest"](store / unit_path(block))["block"] for block in range(manifest.blocks)] == [0, 1, 2]


def table_below(heading: str) -> dict[str, list[str]]:
    """The first table after a heading: first cell, without backticks, to the other cells."""
    lines = FORMAT_PAGE.partition(f"\n{heading}\n")[2].splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    end = next(place for place in range(first, len(lines)) if not lines[place].startswith("|"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first + 2 : end]]
    return {name.strip("`"): cells for name, *cells in rows}


def test_the_page_lists_the_fields_of_views_with_their_types():
    shapes = {name: [kind.dtype, ", ".join(map(str, kind.shape))] for name, kind in VIEW_FIELDS.items()}
    assert {name: cells[:2] for name, cells in table_below("## Views").items()} == shapes
    assert CHECKSUM.dtype == "uint32"


def test_the_page_lists_the_columns_of_the_index_with_their_types(store):
    schema = parquet.read_schema(store / "index.parquet")
    columns = {field.name: str(field.type) for field in schema}
    assert {name: cells[0] for name, cells in table_below("## index.parquet").items()} == columns


def test_the_page_lists_the_keys_of_manifest_and_records(store, page):
    manifest, record = (page["check_digest"](store / path) for path in (FILE_NAME, unit_path(0)))
    assert list(table_below("## manifest.json")) == [*manifest, "digest"]
    assert list(table_below("## Unit records")) == [*record, "digest"]
