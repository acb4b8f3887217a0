"""The printed commands: real ones, that ask for what was recorded."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caev2.commands.online import Online
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.extract.teachers.known import TEACHERS as KNOWN
from caev2.extract.teachers.names import split_name
from caev2.pretrain.identity import settled
from caev2.pretrain.recipes import RECIPES, TINY_300E
from caev2.recipe import load, override, spell, to_mapping
from caev2.report.reproducing.commands import demo_command
from caev2.report.reproducing.extracting import extract_command
from caev2.report.reproducing.recipes import nearest_recipe
from caev2.report.reproducing.training import epochs_between, pretrain_command
from tests.report.made_up import TEACHER, identity_of, manifest_of
from tests.test_docs import parse

DEMO_SHA256 = next(one.sha256 for one in KNOWN if one.name == "demo")
IDENTITY = identity_of()


def parsed(command) -> dict:
    return parse(command.line)[1]


@given(st.text() | st.sampled_from(["none", "NULL", "true", "inf", "12", "1e-3", "[1]", "a b", "'", '"']))
def test_any_text_is_spelled_so_that_set_reads_it_back(text):
    assert override(RECIPES["demo"], [f"target={spell(text)}"]).target == text


@given(st.floats(0, 1, exclude_max=True) | st.sampled_from([1e-5, 5e-324, 0.1 + 0.2]))
def test_any_number_is_spelled_to_its_last_bit(value):
    assert override(RECIPES["demo"], [f"student_jitter={spell(value)}"]).student_jitter == value


SETTINGS = st.lists(
    st.sampled_from(
        [
            "epochs=7",
            "batch_size=96",
            "optimizer.lr=3.75e-4",
            "optimizer.betas=[0.8,0.95]",
            "optimizer.clip_norm=none",
            "loss.visible_weight=0.0",
            'loss.target_norm="none"',
            "loss.average=group_mean",
            "mask.kind=random",
            "mask.count=11",
            "model.layer_scale=none",
            "model.depth=2",
            "student_jitter=0.4",
            "ema_decay=0.999",
            "views=1",
            "order=window",
            "seed=3",
            "target=post_norm",
            "workers=0",
            "log_steps=1",
        ]
    )
)


@settings(max_examples=40)
@given(st.sampled_from(sorted(RECIPES)), SETTINGS)
def test_recipe_and_settings_give_the_recorded_recipe_and_so_the_fingerprint_again(name, wanted):
    recorded = identity_of(override(RECIPES[name], wanted))
    values = parsed(pretrain_command(recorded))
    again = override(load(values["recipe"], RECIPES), values["settings"])
    assert identity_of(again).fingerprint() == recorded.fingerprint()
    assert settled(again, again.precision or "?") == recorded.recipe


def test_the_nearest_recipe_is_the_one_that_needs_the_fewest_settings():
    changed = dataclasses.replace(TINY_300E, epochs=50)
    assert nearest_recipe(to_mapping(changed, result_only=True), RECIPES) == ("tiny-300e", ("epochs=50",))


def test_a_run_with_a_live_teacher_and_other_weights_says_so():
    identity = dataclasses.replace(IDENTITY, online="replay", init_from="ab" * 16)
    command = pretrain_command(identity)
    values = parsed(command)
    assert (values["online"], str(values["init_from"])) == ("replay", "WEIGHTS")
    assert "ab" * 16 in " ".join(command.notes)
    fresh = dataclasses.replace(identity, online="fresh", store_fingerprint="")
    assert parsed(pretrain_command(fresh))["store"] == "IMAGES"


def test_imported_weights_are_imported_again():
    identity = dataclasses.replace(IDENTITY, store_fingerprint="", store_digest="")
    assert pretrain_command(identity).line == "caev2 import FILE RUN"
    parse(pretrain_command(identity).line)


def test_the_extraction_asks_for_the_views_teacher_and_codec_of_the_store():
    manifest = dataclasses.replace(manifest_of(), views=7, layout="webdataset")
    values = parsed(extract_command(IDENTITY, manifest))
    recipe = override(load(values["recipe"], EXTRACT_RECIPES), values["settings"])
    spec = manifest.spec
    assert (recipe.views, recipe.view_count, recipe.layout, recipe.codec) == (spec.views, 7, "webdataset", "lloyd4")
    assert (recipe.teacher, recipe.taps, recipe.block_images) == ("demo@FILE", ("projected",), spec.block_images)


def test_without_the_store_the_extraction_says_what_it_cannot_know():
    assert "how many views" in " ".join(extract_command(IDENTITY, None).notes)


REAL = {**TEACHER, "name": "openclip:ViT-L-14-quickgelu", "image_px": 196, "patch_px": 14, "precision": "fp16"}


def with_teacher(teacher, identity=IDENTITY, **changes):
    return dataclasses.replace(identity, target={**identity.target, "teacher": teacher}, **changes)


def manifest_with(teacher):
    manifest = manifest_of()
    target = dataclasses.replace(manifest.spec.targets["projected"], teacher=teacher)
    return dataclasses.replace(manifest, spec=dataclasses.replace(manifest.spec, targets={"projected": target}))


@pytest.mark.parametrize(
    ("teacher", "name", "teacher_px"),
    [
        (REAL, "openclip:ViT-L-14-quickgelu/openai", 196),
        ({**REAL, "image_px": 224}, "openclip:ViT-L-14-quickgelu/openai", None),
        ({**REAL, "name": "timm:vit_own"}, "timm:vit_own@FILE", 196),
        ({**TEACHER, "sha256": DEMO_SHA256}, "demo", None),
        (TEACHER, "demo@FILE", 64),
    ],
)
def test_the_extraction_names_a_teacher_that_can_be_loaded_and_the_size_of_its_crops(teacher, name, teacher_px):
    command = extract_command(with_teacher(teacher), manifest_with(teacher))
    recipe = override(load(parsed(command)["recipe"], EXTRACT_RECIPES), parsed(command)["settings"])
    assert (recipe.teacher, recipe.teacher_px, recipe.precision) == (name, teacher_px, teacher["precision"])
    assert split_name(recipe.teacher).canonical == teacher["name"]
    assert ("@FILE" in name) == (teacher["sha256"] in " ".join(command.notes))


def test_the_extraction_says_which_images_and_that_a_part_may_have_been_taken():
    notes = " ".join(extract_command(IDENTITY, manifest_of()).notes)
    assert "6,000 images of 10 classes with the digest cdcdcdcdcdcd…" in notes
    assert "--limit, --sample or --classes" in notes


def test_a_run_that_neighbours_judged_is_judged_as_often_again():
    records = [{"step": step, "epoch": (step - 1) // 10, "knn_percent": 1.0} for step in (30, 60, 80)]
    for judged in (epochs_between(records), RECIPES["demo"].knn_epochs):
        values = parsed(pretrain_command(IDENTITY, judged=judged))
        assert str(values["knn"]) == "IMAGES"
        assert override(load(values["recipe"], RECIPES), values["settings"]).knn_epochs == judged
    assert epochs_between(records) == 3
    assert epochs_between([{"step": 1, "epoch": 0, "loss": 1.0}]) is None
    assert parsed(pretrain_command(IDENTITY))["knn"] is None


def fresh(teacher=TEACHER, views=EXTRACT_RECIPES["demo"].views, recipe=RECIPES["demo"], **source):
    known = {"digest": "5a" * 32, "left_out": [], "crops": None, "from_crops": False, "block_images": 512}
    known["teacher_batch"] = min(64, recipe.batch_size)
    return with_teacher(
        teacher, identity_of(recipe), online="fresh", store_fingerprint="", store_digest="", views=to_mapping(views),
        source={**known, **source},
    )  # fmt: skip


CHANGED = st.fixed_dictionaries(
    {},
    optional={
        "flip": st.sampled_from([0.25, 0.5]),
        "scale": st.sampled_from([(0.2, 1.0), (0.5, 0.75)]),
        "orientation": st.just("ignore"),
        "jitter": st.sampled_from([0.0, 0.1]),
    },
)
SOURCE = st.fixed_dictionaries(
    {},
    optional={
        "crops": st.sampled_from(["jpeg", "raw"]),
        "block_images": st.just(64),
        "teacher_batch": st.just(8),
        "left_out": st.lists(st.sampled_from(["a/b c.png", "é.png"]), min_size=1, unique=True),
    },
)
TEACHERS = st.sampled_from([TEACHER, {**TEACHER, "sha256": DEMO_SHA256}, REAL])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["demo", "tiny-300e", "study", "base-100e"]), TEACHERS, CHANGED, SOURCE)
def test_a_live_teacher_and_new_views_are_asked_for_again(tmp_path, monkeypatch, name, teacher, changed, source):
    recipe = override(RECIPES[name], ["batch_size=48"])
    views = dataclasses.replace(EXTRACT_RECIPES.get(name, EXTRACT_RECIPES["base-300e"]).views, **changed)
    recorded = fresh(teacher, views, recipe, **source)
    command = pretrain_command(recorded)
    values = parsed(command)
    monkeypatch.chdir(tmp_path)
    for note in command.notes:
        if note.startswith("VIEWS.toml has the lines: "):
            Path("VIEWS.toml").write_text(note.partition(": ")[2].replace("; ", "\n"))
    assert settled(override(load(values["recipe"], RECIPES), values["settings"]), "fp32") == recorded.recipe
    found = Online(kind="fresh", teacher=values["teacher"], views=values["views"], leave_out=None)._views(
        values["recipe"]
    )
    assert (to_mapping(found.views), found.crops) == (recorded.views, recorded.source["crops"])
    assert found.block_images == recorded.source["block_images"]
    assert min(found.teacher_batch, recipe.batch_size) == recorded.source["teacher_batch"]
    assert split_name(found.teacher).canonical == teacher["name"]
    assert (found.teacher_px or NATURAL[teacher["name"]]) == teacher["image_px"]
    assert found.precision == teacher["precision"] or f"computed in {teacher['precision']}," in " ".join(command.notes)
    assert "digest 5a5a5a5a5a5a…" in " ".join(command.notes)
    assert (values["leave_out"] is not None) == bool(recorded.source["left_out"])
    assert all(key in " ".join(command.notes) for key in recorded.source["left_out"])


NATURAL = {"demo": 64, "openclip:ViT-L-14-quickgelu": 224}


def test_views_that_no_file_can_name_are_said():
    views = dataclasses.replace(EXTRACT_RECIPES["demo"].views, jitter=None)
    assert "TOML has no none" in " ".join(pretrain_command(fresh(views=views)).notes)


def test_the_teacher_of_a_replay_is_named_where_it_is_not_built_in():
    replay = dataclasses.replace(IDENTITY, online="replay")
    assert parsed(pretrain_command(replay))["teacher"] == "demo@FILE"
    known = with_teacher({**TEACHER, "sha256": DEMO_SHA256}, replay)
    assert parsed(pretrain_command(known))["teacher"] is None


def test_the_demo_is_asked_again():
    assert demo_command({"quick": True, "seed": 4}).line == "caev2 demo --out OUT --quick --seed 4"
