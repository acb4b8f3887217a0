"""The printed commands: real ones, that ask for what was recorded."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caev2 import cli
from caev2.commands import probe as probe_command
from caev2.eval.finetuning.recipes import RECIPES as FINETUNE_RECIPES
from caev2.eval.probes.attentive import AttentiveSettings
from caev2.eval.probes.few_shot import FewShotSettings
from caev2.eval.probes.learner import OfficialSettings
from caev2.eval.probes.protocols import KnnSettings, ProbeSettings, settings_of
from caev2.eval.segmentation.training import SegmentationSettings
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.pretrain.identity import settled
from caev2.pretrain.recipes import RECIPES, TINY_300E
from caev2.recipe import load, override, to_mapping
from caev2.report.reading.files import scrubbed
from caev2.report.reading.results import result_of
from caev2.report.reproducing.asking_again import result_command
from caev2.report.reproducing.commands import demo_command
from caev2.report.reproducing.extracting import extract_command
from caev2.report.reproducing.grids import grid_command
from caev2.report.reproducing.recipes import nearest_recipe, spell
from caev2.report.reproducing.training import pretrain_command
from tests.report.made_up import identity_of, make_study, manifest_of, probe_result, segmentation_result
from tests.test_docs import parse

IDENTITY = identity_of()


def parsed(command) -> dict:
    return parse(command.line)[1]


def result_from(result):
    return result_of(scrubbed(json.loads(json.dumps(result.mapping()))), "result.json", {})


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


KINDS = st.lists(
    st.sampled_from(["knn", "linear", "few-shot", "attentive", "official-linear"]), min_size=1, unique=True
)
EPOCHS = st.sampled_from([None, 3, 30, 90])


@given(
    KINDS, st.sampled_from([None, 5]), st.sampled_from([(1, 5, 10), (2,), (1, 20)]), EPOCHS, st.sampled_from([0.1, 0.3])
)
def test_a_probe_is_asked_again_with_every_setting_that_it_had(kinds, k, shots, epochs, base_lr):
    attentive, official = (default if epochs is None else epochs for default in (30, 90))
    settings = ProbeSettings(
        knn=KnnSettings(k=k, temperature=0.05),
        few_shot=FewShotSettings(shots=shots, draws=3),
        attentive=AttentiveSettings(epochs=attentive, warmup_epochs=attentive / 10),
        official_linear=OfficialSettings(epochs=official, batch_size=64, base_lr=base_lr),
    )
    asked = settings_of(tuple(kinds), settings)
    found = dataclasses.replace(probe_result(None, settings=asked, seed=5), subjects=(_judged(kinds),))
    values = parsed(result_command(result_from(found), IDENTITY))
    named = ("k", "temperature", "shots", "draws", "epochs", "batch_size", "base_lr", "token_gb")
    again = probe_command._settings(**{name: values[name] for name in named})
    assert settings_of(tuple(kinds), again) == asked
    assert set(values["kinds"] or ("knn", "linear")) == set(kinds)
    assert (values["seed"], values["only"]) == (5, True)


def _judged(kinds):
    student = probe_result(None).subjects[2]
    columns = {"few-shot": "1-shot", "official-linear": "official linear"}
    accuracy = {columns.get(kind, kind): student.accuracy["knn"] for kind in kinds}
    return dataclasses.replace(student, accuracy=accuracy, per_class={}, draws={})


def test_a_probe_names_who_was_judged_and_how_images_were_resized():
    line = result_command(result_from(probe_result(None)), IDENTITY).line
    assert "--pixels 64" in line
    assert "--resize 64" in line
    assert "--teacher" not in line, "it is the run's own"
    other = dataclasses.replace(probe_result(None).subjects[3], name="teacher siglip", sha256="f" * 64)
    found = probe_result(None, subjects=(*probe_result(None).subjects, other))
    assert "--teacher siglip" in result_command(result_from(found), IDENTITY).line


def test_what_no_option_gives_is_said():
    settings = settings_of(("attentive",), ProbeSettings(attentive=AttentiveSettings(lrs=(0.2,))))
    notes = result_command(result_from(probe_result(None, settings=settings)), IDENTITY).notes
    assert "'lrs': [0.2]" in " ".join(notes)


@pytest.mark.parametrize(
    "changes", [{}, {"head": "upernet", "channels": 32, "lr": 3e-4}, {"batch_size": 4, "epochs": 2}]
)
def test_a_segmentation_is_asked_again(changes):
    wanted = SegmentationSettings(**changes)
    values = parsed(
        result_command(result_from(dataclasses.replace(segmentation_result(None), settings=wanted)), IDENTITY)
    )
    again = SegmentationSettings(**{name: values[name] for name in ("head", "epochs", "batch_size", "lr", "channels")})
    assert again == wanted


@pytest.mark.parametrize(
    ("role", "origin"), [("student", "student"), ("random start", "random"), ("teacher", "teacher")]
)
def test_a_fine_tuning_is_asked_again(role, origin):
    recipe = dataclasses.replace(FINETUNE_RECIPES["base"], epochs=3, precision="fp32")
    judged = dataclasses.replace(probe_result(None).subjects[2], role=role, name=role)
    found = probe_result(None, subjects=(judged,), settings={"finetune": to_mapping(recipe, result_only=True)})
    values = parsed(result_command(result_from(found), IDENTITY))
    assert override(load(values["recipe"], FINETUNE_RECIPES), values["settings"]) == recipe
    assert values["origin"] == origin


def test_the_demo_is_asked_again():
    assert demo_command({"quick": True, "seed": 4}).line == "caev2 demo --out OUT --quick --seed 4"


def test_a_grid_is_asked_again(tmp_path):
    line = grid_command(make_study(tmp_path)).line
    assert line == "caev2 ablate STUDY supervision OUT --quick --images IMAGES --seeds 0,1,2"
    if "ablate" in cli.main.commands:
        parse(line)
