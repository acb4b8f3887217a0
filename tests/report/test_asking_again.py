"""Results asked again: who was judged, how, on which images, from which checkpoint, in words of the real commands."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.commands import probe as probe_command
from caev2.eval.finetuning.recipes import RECIPES as FINETUNE_RECIPES
from caev2.eval.probes.attentive import AttentiveSettings
from caev2.eval.probes.few_shot import FewShotSettings
from caev2.eval.probes.learner import OfficialSettings
from caev2.eval.probes.protocols import KnnSettings, ProbeSettings, settings_of
from caev2.eval.segmentation.training import SegmentationSettings
from caev2.recipe import load, override, to_mapping
from caev2.report.reading.files import scrubbed
from caev2.report.reading.results import result_of
from caev2.report.reproducing.asking_again import result_command
from tests.report.made_up import facts_of, identity_of, make_checkpoint, probe_result, segmentation_result
from tests.test_docs import parse

IDENTITY = identity_of()


def parsed(command) -> dict:
    return parse(command.line)[1]


def result_from(result, file="result.json"):
    return result_of(scrubbed(json.loads(json.dumps(result.mapping()))), file, {})


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
    ("role", "name", "asked"),
    [
        ("student", "student", {"subject": "RUN", "origin": "student"}),
        ("student", "student, weights averaged", {"subject": "RUN", "origin": "average"}),
        ("student", "student of official.pt", {"subject": "FILE", "origin": "student"}),
        ("random start", "random start", {"subject": "RUN", "origin": "random"}),
        ("random start", "random start of tiny-300e", {"random_init": "tiny-300e"}),
        ("random start", "random start of …/own.toml", {"random_init": "RECIPE.toml"}),
        ("teacher", "teacher demo", {"subject": "RUN", "origin": "teacher"}),
        ("teacher", "teacher clip", {"teacher": "clip"}),
        ("teacher", "teacher openclip:ViT-B-16@…/clip.pt", {"teacher": "openclip:ViT-B-16@FILE"}),
    ],
)
def test_a_fine_tuning_is_asked_again_by_the_name_of_its_start_in_its_own_folder(role, name, asked):
    recipe = dataclasses.replace(FINETUNE_RECIPES["base"], epochs=3, precision="fp32")
    judged = dataclasses.replace(probe_result(None).subjects[2], role=role, name=name)
    found = probe_result(None, subjects=(judged,), settings={"finetune": to_mapping(recipe, result_only=True)})
    values = parsed(result_command(result_from(found, "finetuned/clip-100ep/result.json"), IDENTITY))
    assert override(load(values["recipe"], FINETUNE_RECIPES), values["settings"]) == recipe
    assert str(values["out"]) == "RUN/finetuned/clip-100ep"
    given = {key: values[key] for key in ("subject", "random_init", "teacher") if values[key] is not None}
    assert {
        **{key: str(value) for key, value in given.items()},
        **({"origin": values["origin"]} if "subject" in given else {}),
    } == asked


def line_up(*named, own=True, kind=probe_result):
    """A result of the student and some others, with its own random start and teacher or without."""
    line = {one.name: one for one in kind(None).subjects}
    subjects = [line["student"], *([line["random start"], line["teacher demo"]] if own else [])]
    subjects += [dataclasses.replace(line["student"], role=role, name=name) for role, name in named]
    return result_from(dataclasses.replace(kind(None), subjects=tuple(subjects)))


@pytest.mark.parametrize("kind", [probe_result, segmentation_result])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("named", "words", "option"),
    [
        ([], ["RUN", "IMAGES"], {}),
        ([("model", "timm:vit_tiny_patch16_224.augreg")], ["RUN", "timm:vit_tiny_patch16_224.augreg", "IMAGES"], {"size_px": 64}),
        ([("model", "timm:vit_tiny_patch16_224")], ["RUN", "timm:vit_tiny_patch16_224@FILE", "IMAGES"], {"size_px": 64}),
        ([("student", "student of official.pt")], ["RUN", "FILE", "IMAGES"], {}),
        ([("random start", "random start of base-300e")], ["RUN", "IMAGES"], {"random_init": "base-300e"}),
        ([("random start", "random start of …/own.toml")], ["RUN", "IMAGES"], {"random_init": "RECIPE.toml"}),
        ([("teacher", "teacher timm:vit@…/w.pt")], ["RUN", "IMAGES"], {"teacher": "timm:vit@FILE"}),
    ],
)  # fmt: skip
def test_everybody_who_was_judged_is_named_again(kind, own, named, words, option):
    values = parsed(result_command(line_up(*named, own=own, kind=kind), IDENTITY))
    assert [str(word) for word in values["paths"]] == words
    assert values["only"] == (not own)
    wanted = {"random_init": None, "teacher": None, "size_px": None, **option}
    assert {key: values[key] for key in wanted} == wanted


def test_the_random_start_of_a_model_is_its_own_and_no_recipe():
    named = [
        ("model", "timm:vit_tiny_patch16_224.augreg"),
        ("random start", "random start of timm:vit_tiny_patch16_224"),
    ]
    values = parsed(result_command(line_up(*named), IDENTITY))
    assert (values["random_init"], values["only"]) == (None, False)


def test_an_own_teacher_that_was_missing_is_not_named_as_another():
    hidden = "/home" + "/alice/own.pt"
    identity = dataclasses.replace(IDENTITY, target={**IDENTITY.target, "teacher": {"name": f"openclip:ViT@{hidden}"}})
    subjects = [one for one in probe_result(None).subjects if one.role != "teacher"]
    missing = dataclasses.replace(
        subjects[2], role="teacher", name=f"teacher openclip:ViT@{hidden}", not_available="gone"
    )
    found = result_from(probe_result(None, subjects=(*subjects, missing)))
    assert parsed(result_command(found, identity))["teacher"] is None


def test_the_own_teacher_is_named_where_nothing_else_brings_it():
    values = parsed(result_command(line_up(("teacher", "teacher demo"), own=False), IDENTITY))
    assert (values["teacher"], values["only"]) == ("demo", True)


def test_images_are_told_by_their_digests():
    notes = " ".join(result_command(result_from(probe_result(None)), IDENTITY).notes)
    assert "IMAGES has 6,000 train and 5,000 val images" in notes
    assert "train images aaaaaaaaaaaa…, val images bbbbbbbbbbbb…" in notes
    assert "train images eeeeeeeeeeee…" in " ".join(
        result_command(result_from(segmentation_result(None)), IDENTITY).notes
    )


@pytest.mark.parametrize(
    ("latest", "said"), [(10, None), (20, "and that is of step 20 now"), (None, "and the run has none now")]
)
def test_a_result_of_another_checkpoint_than_the_latest_says_so(tmp_path, latest, said):
    found = probe_result(facts_of(IDENTITY, make_checkpoint(tmp_path, IDENTITY, 10), 10))
    notes = " ".join(result_command(result_from(found), IDENTITY, latest=latest).notes)
    assert ("It judged the checkpoint of step 10" in notes) == (said is not None)
    assert said is None or said in notes
