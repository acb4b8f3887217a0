"""Recipes: what a setting may say, what it may not, and that the fingerprint follows the result alone."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import ConfigError
from caev2.recipe import canonical, choose, fingerprint, load, merge, nearest, override, speed, to_mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float | None = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    epochs: int = 300
    loss: Literal["cosine", "mse"] = "cosine"
    depths: tuple[int, ...] = (4, 4)
    name: str = "tiny"
    whiten: bool = False
    optimizer: Optimizer = field(default_factory=Optimizer)
    workers: int = speed(8)

    def __post_init__(self):
        if self.epochs < 1:
            raise ConfigError(f"epochs is {self.epochs}. Give 1 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    images: str
    """Has no default, so that a file must name its base."""


BUILT_IN = {"tiny-300e": Recipe(), "small-300e": Recipe(name="small", epochs=200)}

finite = st.floats(allow_nan=False, allow_infinity=False)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 10**9),
    loss=st.sampled_from(["cosine", "mse"]),
    depths=st.lists(st.integers(-(10**6), 10**6), max_size=4).map(tuple),
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
    whiten=st.booleans(),
    optimizer=st.builds(Optimizer, lr=finite, betas=st.tuples(finite, finite), clip_norm=st.none() | finite),
    workers=st.integers(0, 64),
)


def toml(value) -> str:
    """The text a user would type after `key=`."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


@given(recipes)
def test_a_recipe_survives_its_json_and_back(recipe):
    assert merge(Recipe(), json.loads(canonical(to_mapping(recipe))), "here") == recipe


@given(recipes)
def test_overriding_every_field_gives_the_recipe_those_values_came_from(recipe):
    flat = to_mapping(recipe)
    nested = flat.pop("optimizer")
    values = {**flat, **{f"optimizer.{key}": value for key, value in nested.items()}}
    assert override(Recipe(), [f"{key}={toml(value)}" for key, value in values.items()]) == recipe


@given(recipes, st.integers(0, 64))
def test_the_fingerprint_ignores_what_only_changes_the_speed(recipe, workers):
    faster = dataclasses.replace(recipe, workers=workers)
    assert fingerprint(to_mapping(faster, result_only=True)) == fingerprint(to_mapping(recipe, result_only=True))


@given(recipes, recipes)
def test_two_recipes_share_a_fingerprint_only_if_their_results_are_equal(one, other):
    results = [to_mapping(recipe, result_only=True) for recipe in (one, other)]
    assert (fingerprint(results[0]) == fingerprint(results[1])) == (canonical(results[0]) == canonical(results[1]))
    changed = dataclasses.replace(one, epochs=one.epochs + 1)
    assert fingerprint(to_mapping(changed, result_only=True)) != fingerprint(results[0])


def test_the_fingerprint_is_frozen():
    # stores and runs of the past carry fingerprints: sha256 of {"a":[1,2.5,null],"é":true}, first 32 digits
    assert canonical({"é": True, "a": [1, 2.5, None]}) == '{"a":[1,2.5,null],"é":true}'.encode()
    assert fingerprint({"é": True, "a": [1, 2.5, None]}) == "21b0ae764c2c3ce541f7107d30536b97"


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("loss=mse", "loss", "mse"),
        ('loss="mse"', "loss", "mse"),
        ("name=a b", "name", "a b"),
        ("name=x=y", "name", "x=y"),
        ("depths=[1, 2, 3]", "depths", (1, 2, 3)),
        ("depths=[]", "depths", ()),
        (" whiten = true", "whiten", True),
        ("optimizer.lr=1", "optimizer", Optimizer(lr=1.0)),
        ("optimizer.clip_norm=None", "optimizer", Optimizer(clip_norm=None)),
    ],
)
def test_a_setting_is_read_as_its_field_means_it(setting, field, value):
    changed = override(Recipe(), [setting])
    assert changed == dataclasses.replace(Recipe(), **{field: value})
    assert type(getattr(changed, field)) is type(value)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("epochs", "has no value"),
        ("epoch=3", "Did you mean 'epochs'"),
        ("optimizer.rl=1", "'optimizer.rl'"),
        ("optimizer=3", "optimizer cannot be 3"),
        ("epochs.x=3", "epochs cannot be"),
        ("epochs=2.5", "epochs cannot be 2.5. Give a value of type int"),
        ("epochs=true", "epochs cannot be True"),
        ("epochs=none", "epochs cannot be None"),
        ("whiten=1", "whiten cannot be 1"),
        ("loss=cosin", "Did you mean 'cosine'"),
        ("optimizer.lr=fast", "optimizer.lr cannot be 'fast'"),
        ("optimizer.lr=true", "optimizer.lr cannot be True"),
        ("optimizer.betas=[0.9]", "optimizer.betas cannot be [0.9]"),
        ("optimizer.clip_norm=off", "optimizer.clip_norm cannot be 'off'"),
        ("depths=3", "depths cannot be 3"),
        ('depths=[1, "2"]', "depths cannot be '2'"),
        ("epochs=0", "epochs is 0. Give 1 or more."),
        ("=3", "there is no setting called ''"),
    ],
)
def test_a_setting_that_cannot_be_used_says_which_and_what_instead(setting, says):
    with pytest.raises(ConfigError) as refusal:
        override(Recipe(), ["name=x", setting])
    assert says in str(refusal.value)
    assert setting in str(refusal.value)


def test_a_toml_file_starts_from_the_recipe_it_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "small-300e"\nepochs = 5\n[optimizer]\nlr = 2\n')
    assert load(str(path), BUILT_IN) == Recipe(name="small", epochs=5, optimizer=Optimizer(lr=2.0))


def test_a_toml_file_without_a_base_starts_from_the_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 5\n")
    assert load(str(path), BUILT_IN) == Recipe(epochs=5)


def test_a_toml_file_must_name_its_base_where_there_are_no_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('images = "there"\n')
    with pytest.raises(ConfigError, match="does not say which recipe it starts from"):
        load(str(path), {"built-in": Named(images="here")})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"epochs = ", "is not a TOML file"),
        (b"\xff\xfe", "is not a TOML file"),
        (b"epoch = 5", "Did you mean 'epochs'"),
        (b'base = "tiny-30e"', "Did you mean 'tiny-300e'"),
        (b"epochs = -1", "epochs is -1"),
    ],
)
def test_a_toml_file_that_cannot_be_used_is_refused(tmp_path, content, says):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        load(str(path), BUILT_IN)
    assert says in str(refusal.value)


def test_a_missing_recipe_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.toml"), BUILT_IN)


def test_a_folder_in_place_of_a_recipe_file_is_refused(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml"):
        load(str(tmp_path / "folder.toml"), BUILT_IN)


def test_a_base_that_is_no_name_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("base = 5\n")
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        load(str(path), BUILT_IN)


def test_an_unknown_name_offers_the_nearest_or_else_all():
    with pytest.raises(ConfigError, match=r"no recipe called 'tiny'.*Did you mean 'tiny-300e'"):
        choose("tiny", BUILT_IN, "recipe")
    assert nearest("qqqq", BUILT_IN) == "Known: small-300e, tiny-300e."


@given(st.text(max_size=8))
def test_only_built_in_names_are_found(name):
    if name in BUILT_IN:
        assert choose(name, BUILT_IN, "recipe") is BUILT_IN[name]
    else:
        with pytest.raises(ConfigError):
            choose(name, BUILT_IN, "recipe")


def test_settings_are_applied_in_order_and_the_first_recipe_stays():
    start = Recipe()
    assert override(start, ["epochs=1", "epochs=2"]).epochs == 2
    assert start == Recipe()
