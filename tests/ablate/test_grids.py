"""Grids: which runs they come to, under which names, and what is no grid."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.ablate.expansion import expand
from caev2.ablate.grid_files import grid_of, read_grid, say_value
from caev2.ablate.grids import Grid, GridAxis, Value
from caev2.ablate.making import StoreMaking
from caev2.errors import ConfigError
from caev2.pretrain.recipes import RECIPES
from caev2.recipe import override

FIELDS = {
    "views": [1, 2, 4],
    "loss.class_weight": [0, 1, 2.5],
    "loss.average": ["token_mean", "group_mean"],
    "mask.count": [16, 32],
    "student_jitter": [0.0, 0.2],
}


@st.composite
def axes(draw) -> list[tuple]:
    """Fields, values, baselines; what is made of them is checked by chance, and so not made in here."""
    fields = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3, unique=True))
    values = [draw(st.lists(st.sampled_from(FIELDS[field]), min_size=1, max_size=3, unique=True)) for field in fields]
    return [(field, some, draw(st.sampled_from(some))) for field, some in zip(fields, values, strict=True)]


def grid(axes, seeds=(0, 1)) -> Grid:
    made = [
        GridAxis(
            name=field,
            values=tuple(Value(name=str(value), settings={field: value}) for value in values),
            baseline=str(baseline),
        )
        for field, values, baseline in axes
    ]
    return Grid(name="any", axes=tuple(made), recipe="demo", seeds=tuple(seeds))


@given(axes(), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
def test_a_grid_comes_to_every_combination_of_values_with_every_seed_once(axes, seeds):
    runs = expand(grid(axes, seeds))
    wanted = Counter(itertools.product(*([str(value) for value in values] for _, values, _ in axes), seeds))
    assert Counter((*run.values.values(), run.seed) for run in runs) == wanted
    assert len({run.name for run in runs}) == len(runs)


@given(axes(), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
def test_seeds_are_paired_and_change_nothing_but_the_seed(axes, seeds):
    runs = expand(grid(axes, seeds))
    for _, group in itertools.groupby(runs, key=lambda run: run.variant):
        same = list(group)
        assert [run.seed for run in same] == seeds
        assert len({override(run.recipe, ["seed=0"]) for run in same}) == 1
        assert [run.recipe.seed for run in same] == seeds


@given(axes())
def test_every_run_is_the_recipe_with_just_its_values_set(axes):
    for run in expand(grid(axes, [0])):
        settings = [f"{field}={value}" for field, value in run.settings.items()]
        assert run.recipe == override(RECIPES["demo"], [*settings, "keep_checkpoints=1"])


@given(axes())
def test_one_variant_is_the_baseline(axes):
    made = grid(axes)
    assert [variant.name for variant in made.variants].count(made.baseline) == 1


def written(tmp_path: Path, text: str) -> Grid:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return read_grid(file)


WHOLE = """
title = "Mine"
claim = "It helps."
source = "ours"
recipe = "demo"
seeds = [3, 1]
evaluations = ["knn", "few-shot"]
metrics = ["5-shot", "loss"]
[set]
epochs = 4
optimizer = { lr = 1e-3 }
[[axis]]
name = "views"
field = "views"
values = [1, 2]
baseline = 2
[[axis]]
name = "supervision"
[[axis.value]]
name = "all"
[[axis.value]]
name = "masked only"
set = { loss.visible_weight = 0, "loss.class_weight" = 0 }
store = "still"
[[axis.value]]
name = "fresh"
online = "fresh"
"""


def test_a_file_says_what_a_grid_is(tmp_path):
    runs = expand(written(tmp_path, WHOLE))
    assert [run.name for run in runs] == [  # golden: folders and tables of users are called so
        "mine/views=1/supervision=all/seed=3",
        "mine/views=1/supervision=all/seed=1",
        "mine/views=1/supervision=masked only/seed=3",
        "mine/views=1/supervision=masked only/seed=1",
        "mine/views=1/supervision=fresh/seed=3",
        "mine/views=1/supervision=fresh/seed=1",
        "mine/views=2/supervision=all/seed=3",
        "mine/views=2/supervision=all/seed=1",
        "mine/views=2/supervision=masked only/seed=3",
        "mine/views=2/supervision=masked only/seed=1",
        "mine/views=2/supervision=fresh/seed=3",
        "mine/views=2/supervision=fresh/seed=1",
    ]
    masked = runs[2]
    assert (masked.recipe.loss.visible_weight, masked.recipe.loss.class_weight, masked.recipe.views) == (0, 0, 1)
    assert (masked.recipe.epochs, masked.recipe.optimizer.lr, masked.store) == (4, 1e-3, "still")
    assert masked.values == {"views": "1", "supervision": "masked only"}
    assert (runs[4].online, runs[4].store) == ("fresh", "views")


def test_a_file_names_its_baseline_and_what_its_table_shows(tmp_path):
    made = written(tmp_path, WHOLE)
    assert made.baseline == "views=2/supervision=all"
    assert made.shown_metrics == ("5-shot", "loss")
    assert (made.title, made.claim, made.source) == ("Mine", "It helps.", "ours")


def test_none_is_none_but_where_a_field_takes_the_word(tmp_path):
    text = 'recipe = "demo"\n[[axis]]\nname = "a"\nfield = "{}"\nvalues = ["none"]\n'
    assert expand(written(tmp_path, text.format("optimizer.clip_norm")))[0].recipe.optimizer.clip_norm is None
    assert expand(written(tmp_path, text.format("loss.target_norm")))[0].recipe.loss.target_norm == "none"


def test_settings_of_the_command_come_before_those_of_the_grid(tmp_path):
    runs = expand(written(tmp_path, WHOLE), {"epochs": 9})
    assert {run.recipe.epochs for run in runs} == {9}


AXIS = '[[axis]]\nname = "views"\nfield = "views"\nvalues = [1, 2]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = [0]\n" + AXIS, "'seed' in a grid. Did you mean 'seeds'"),
        (AXIS + "basline = 1\n", "'basline' in an axis. Did you mean 'baseline'"),
        (AXIS + "baseline = 3\n", "Axis 'views' has no value '3'"),
        ('recipe = "dmo"\n' + AXIS, "no recipe called 'dmo'"),
        ("[set]\nepoch = 3\n" + AXIS, "no setting called 'epoch'. Did you mean 'epochs'"),
        (AXIS.replace('field = "views"', 'field = "loss.avrage"'), "no setting called 'loss.avrage'"),
        (AXIS.replace("[1, 2]", '["many"]'), "views cannot be 'many'"),
        (AXIS.replace("[1, 2]", "[]"), "has no values"),
        (AXIS.replace("[1, 2]", "[1, 1]"), "two values called '1'"),
        (AXIS + AXIS, "Give each a name of its own"),
        (AXIS + AXIS.replace('name = "views"', 'name = "other"'), "the axes 'views' and 'other' both set views"),
        (AXIS.replace('"views"', '"loss"').replace("[1, 2]", '["a"]') + AXIS.replace('"views"', '"loss.average"'), "both set loss"),
        (AXIS.replace('field = "views"', 'field = "seed"'), "seeds are no setting"),
        ('evaluations = ["knn", "linar"]\n' + AXIS, "no evaluation 'linar'. Did you mean 'linear'"),
        ('metrics = ["linear"]\nevaluations = ["knn"]\n' + AXIS, "no metric 'linear'"),
        ("seeds = [1, 1]\n" + AXIS, "each once"),
        ("seeds = [true]\n" + AXIS, "seeds cannot be True. Give a whole number"),
        ('[[axis]]\nname = "a/b"\nfield = "views"\nvalues = [1]\n', "cannot be called 'a/b'"),
        ('[[axis]]\nname = "a"\n[[axis.value]]\nname = "b"\nonline = "replay"\n', "online cannot be 'replay'"),
        ('[[axis]]\nname = "a"\n[[axis.value]]\nname = "b"\nsets = {}\n', "Did you mean 'set'"),
        ("[stores.int8]\ncodec = 'int8'\n" + AXIS, "no key 'codec' in stores.int8"),
        ("[stores.int8]\n" + AXIS, "say either `convert`"),
        ('metrics = ["knn", "loss", "knn"]\n' + AXIS, "the metric 'knn' is given twice"),
        ('evaluations = ["knn", "knn"]\n' + AXIS, "the evaluation 'knn' is given twice"),
        (AXIS.replace('"views"', '"ema_decay"').replace("[1, 2]", "[0.9, 0.99]"), "averaged weights alone"),
        (AXIS.replace('field = "views"', 'field = "store"').replace("[1, 2]", '["../views"]'), "cannot be called '../views'"),
        ("[stores.'a/b']\nconvert = 'int8'\n" + AXIS, "A store cannot be called 'a/b'"),
        ("title = 3\n" + AXIS, "title cannot be 3. Give a text"),
        ('title = "nothing"\n', "varies nothing"),
        ("title = \n", "is not a TOML file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_grid_is_refused_with_its_name(tmp_path, text, said):
    with pytest.raises(ConfigError, match="mine") as problem:
        expand(written(tmp_path, text))
    assert said in str(problem.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        read_grid(tmp_path / "none.toml")


def test_what_an_axis_varies_cannot_be_set_for_all(tmp_path):
    made = written(tmp_path, WHOLE)
    with pytest.raises(ConfigError, match="--set views: axis 'views' of grid mine varies views"):
        expand(made, {"views": 3})
    with pytest.raises(ConfigError, match="varies loss"):
        expand(made, {"loss": {"average": "group_mean"}})


def test_a_recipe_file_may_lie_beside_its_grid(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "student.toml").write_text('base = "demo"\nepochs = 7\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    made = written(tmp_path / "mine", 'recipe = "student.toml"\n' + AXIS)
    assert {run.recipe.epochs for run in expand(made)} == {7}


def test_how_a_store_is_made_may_name_targets_and_take_any_quality(tmp_path):
    text = '[stores.bits]\nconvert = "pq"\nof = "large"\ntargets = ["projected"]\nany_quality = true\n'
    made = written(tmp_path, text + AXIS).stores["bits"]
    assert made == StoreMaking(convert="pq", of="large", targets=("projected",), any_quality=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extract = []\ntargets = ["projected"]', "targets goes with `convert`"),
        ("extract = []\nany_quality = true", "any_quality goes with `convert`"),
        ('convert = "pq"\ntargets = "projected"', "stores.a.targets cannot be 'projected'. Give a list"),
        ('convert = "pq"\nany_quality = 1', "stores.a.any_quality cannot be 1. Give true or false"),
        ('convert = "pq"\ntarget = ["projected"]', "Did you mean 'targets'"),
    ],
)
def test_how_a_store_is_made_is_checked(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        written(tmp_path, f"[stores.a]\n{text}\n{AXIS}")


def test_a_file_that_is_called_like_a_built_in_grid_is_refused(tmp_path):
    (tmp_path / "codec.toml").write_text(AXIS)
    with pytest.raises(ConfigError, match=r"codec\.toml is called like a built-in grid.* Rename the file"):
        read_grid(tmp_path / "codec.toml")


def test_no_grid_takes_the_folder_of_the_runs():
    with pytest.raises(ConfigError, match="cannot be called 'runs'"):
        grid_of("runs", {"axis": [{"name": "views", "field": "views", "values": [1]}]})


@pytest.mark.parametrize(
    ("value", "name"),
    [(1.0, "1"), (1234567.0, "1234567"), (0.00012345678, "0.00012345678"), (1e-05, "1e-05"), (2, "2"), (True, "true")],
)
def test_a_value_is_called_by_all_its_digits(value, name):
    assert say_value(value) == name
