"""Probing: what is easy to see is found, what is not there is not, and a broken data set is refused."""

import dataclasses
import gc
import json
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import CheckpointError, ConfigError, SourceError, TeacherError
from caev2.eval.entrants import Entrant, RunEntry, pixels
from caev2.eval.features import Subject
from caev2.eval.parts import check_same_classes
from caev2.eval.result import save_result
from caev2.eval.run import probe
from caev2.eval.subjects import load_student, open_run
from caev2.extract.run import extract
from caev2.pretrain.learning.step import normalise_images
from caev2.pretrain.run import pretrain
from caev2.pretrain.student.model import build
from caev2.pretrain.student.parameters import adamw
from caev2.pretrain.weights.checkpoint import FORMAT, save_checkpoint
from caev2.pretrain.weights.tensor_file import read_tensors, write_tensors
from tests.made_up import EXTRACT, PRETRAIN, PatchMeans, make_photographs


@pytest.fixture
def colours(tmp_path):
    """Reddish and bluish noise, 40 train and 20 val images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 20)):
        for number in range(count):
            pixels = random.integers(0, 200, (36, 36, 3), dtype=np.uint8)
            pixels[..., 2 * (number % 2)] += 55
            folder = tmp_path / "colours" / split / ("red", "blue")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "colours"


def mean_colour(crops):
    return {"useless": torch.ones(len(crops), 2), "mean": crops.float().mean((1, 2))}


def first_pixel_of_green(crops):
    return {"green": crops[:, :4, 0, 1].float()}


def entrant(pool, name="subject", role="student", **more) -> Entrant:
    return Entrant(role=role, name=name, open=lambda _: Subject(name=name, size_px=32, pool=pool), **more)


def test_a_visible_difference_is_found_and_the_useful_pooling_is_chosen(colours):
    result = probe([entrant(mean_colour)], colours)
    (judged,) = result.subjects
    assert judged.accuracy["linear"].value == 1.0
    assert judged.protocol["linear"]["pooling"] == "mean"
    assert (result.train_images, result.val_images, result.classes) == (40, 20, ("blue", "red"))


def test_features_that_know_nothing_are_at_chance(colours):
    (judged,) = probe([entrant(first_pixel_of_green)], colours).subjects
    for accuracy in judged.accuracy.values():
        assert accuracy.low < 0.5 < accuracy.high


def never(crops):
    raise AssertionError("an image was read before what could be refused was refused")


def test_a_split_that_is_missing_or_has_other_classes_is_refused(colours, tmp_path):
    with pytest.raises(SourceError, match=r"there is no .*train"):
        probe([entrant(never)], tmp_path)
    (colours / "val" / "red").rename(colours / "val" / "rosé")
    with pytest.raises(SourceError, match="in one of them only"):
        probe([entrant(never)], colours)


def test_labels_that_no_features_could_help_are_refused_before_an_image_is_read(colours):
    for number in range(1, 40):
        (colours / "train" / ("red", "blue")[number % 2] / f"{number}.png").unlink(missing_ok=number > 1)
    Image.new("RGB", (36, 36)).save(colours / "train" / "blue" / "1.png")
    with pytest.raises(SourceError, match="none can be held out"):
        probe([entrant(never)], colours)
    for split in ("train", "val"):
        for image in (colours / split / "red").iterdir():
            image.unlink()
    with pytest.raises(SourceError, match="A probe needs images of two classes"):
        probe([entrant(never)], colours, kinds=["knn"])


def refuse(device):
    raise TeacherError("nobody has it")


def test_who_may_be_missing_gets_a_line_with_the_reason_and_who_may_not_ends_it_at_once(colours):
    absent = Entrant(role="teacher", name="teacher", open=refuse, may_be_missing=True)
    result = probe([absent, entrant(mean_colour), pixels(8)], colours, kinds=["knn"])
    assert [one.role for one in result.subjects] == ["pixels", "student", "teacher"]
    assert [one.not_available for one in result.subjects] == [None, None, "nobody has it"]
    assert result.subjects[2].accuracy == {}
    with pytest.raises(TeacherError, match="nobody has it"):
        probe([entrant(never), Entrant(role="teacher", name="teacher", open=refuse)], colours)


def test_one_subject_at_a_time_is_in_memory(colours):
    alive: list[weakref.ref] = []

    class Weights:
        def pool(self, crops):
            return mean_colour(crops)

    def open_it(device):
        gc.collect()
        assert [one for one in alive if one() is not None] == []
        weights = Weights()
        alive.append(weakref.ref(weights))
        return Subject(name="weights", size_px=32, pool=weights.pool)

    probe([Entrant(role="student", name=name, open=open_it) for name in "abc"], colours, kinds=["knn"])
    assert len(alive) == 6  # each opened once to see that it can be, and once to be judged


@pytest.fixture
def run(tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    pretrain(tmp_path / "store", tmp_path / "run", PRETRAIN, images=images)
    return tmp_path / "run"


def test_a_run_is_probed_with_its_last_weights_beside_its_own_start(colours, run):
    entry = RunEntry.find(run)
    result = probe([entry.student(), entry.random_start(), entry.teacher()], colours, run=entry.facts())
    start, student, teacher = result.subjects
    assert student.accuracy["linear"].low > 0.5  # a student of mean colours tells red from blue
    assert "patch-means with sha256 000000000000 is not built in" in teacher.not_available
    assert (start.role, student.role) == ("random start", "student")
    written = json.loads(save_result(result, run).read_text())
    assert written["subjects"][1]["accuracy"]["knn"]["value"] == student.accuracy["knn"].value
    assert written["run"]["step"] == entry.step


def test_the_random_start_of_a_run_is_the_student_before_its_first_step(run, tmp_path):
    crops = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8)
    seeded = dataclasses.replace(PRETRAIN, seed=5)
    pretrain(tmp_path / "store", tmp_path / "seeded", seeded, images=tmp_path / "images")
    for recipe, folder in ((PRETRAIN, run), (seeded, tmp_path / "seeded")):
        entry = RunEntry.find(folder)
        with torch.inference_mode():
            start = entry.random_start().open("cpu").pool(crops)
            before_training = build(entry.identity.model, recipe.seed)
            assert torch.equal(start["class"], before_training.encoder(normalise_images(crops))[:, 0])
            assert not torch.equal(start["class"], entry.student().open("cpu").pool(crops)["class"])


def test_another_probe_of_a_run_leaves_the_earlier_result(colours, run, tmp_path):
    entry = RunEntry.find(run)

    def ask(images, **more):
        result = probe([entry.student()], images, kinds=["knn"], run=entry.facts(), **more)
        latest = save_result(result, run)
        kept = run / "results" / f"{result.question()}.json"
        assert latest.read_bytes() == kept.read_bytes()
        return kept, kept.read_bytes()

    first, content = ask(colours)
    assert ask(colours) == (first, content)  # the same question has the same answer
    (colours / "val" / "red" / "0.png").rename(colours / "val" / "red" / "00.png")
    others = {ask(colours)[0], ask(colours, resize_px=40)[0], ask(colours, seed=1)[0]}
    assert len(others) == 3
    assert first.read_bytes() == content
    assert set((run / "results").iterdir()) == {first, *others}


def test_results_hold_no_path(colours, run, tmp_path):
    entry = RunEntry.find(run)
    path = save_result(probe([entry.student(), entry.teacher()], colours, run=entry.facts()), run)
    assert str(tmp_path) not in path.read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="There is no run at"):
        open_run(tmp_path, "cpu")


def test_broken_weights_are_refused_before_an_image_is_read(run, colours):
    entry = RunEntry.find(run)
    model = load_student(entry.identity, entry.checkpoint, "cpu")
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.bias[3] = float("nan")
    save_checkpoint(
        run / "checkpoints", model, adamw(model), step=999, fingerprint=entry.identity.fingerprint(), keep_last=1
    )
    said = r"step-000000999.safetensors are broken: 1 of the \d+ numbers of encoder.blocks.1.mlp.fc1.bias"
    with pytest.raises(CheckpointError, match=said):
        probe([entrant(never, role="pixels"), RunEntry.find(run).student()], colours)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_before_an_image_is_read(run, colours):
    path = RunEntry.find(run).checkpoint
    tensors, facts = read_tensors(path, FORMAT)
    lacking = "model/encoder.norm.weight"
    del tensors[lacking]
    write_tensors(path, tensors, facts)
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.weight"):
        probe([entrant(never, role="pixels"), RunEntry.find(run).student()], colours)


def test_the_same_classes_in_another_order_are_refused():
    check_same_classes("photos", ("blue", "red"), ("blue", "red"))
    with pytest.raises(SourceError, match="number 1 is 'red' in train and 'teal' in val"):
        check_same_classes("photos", ("blue", "red", "teal"), ("blue", "teal", "red"))
    with pytest.raises(SourceError, match="train has 2 classes and val 3; 'teal' is in one of them only"):
        check_same_classes("photos", ("blue", "red"), ("blue", "teal", "red"))


def test_too_little_memory_to_judge_is_said_with_what_to_do(colours):
    def full(crops):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore words")

    with pytest.raises(ConfigError, match=r"too little memory to judge with \(CUDA out of memory.*MiB\.\)\. End what"):
        probe([entrant(full)], colours)
