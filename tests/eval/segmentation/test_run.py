"""A comparison of masks: everybody on the same images, the least one may hope for first, and what a table says."""

import pytest

from caev2.demo.masked_scenes import write_masked_scenes
from caev2.errors import CheckpointError, ConfigError
from caev2.eval.entrants import Entrant, named_teacher, pixels, random_start
from caev2.eval.segmentation.run import print_segmentation, segment
from caev2.eval.segmentation.training import SegmentationSettings

SHORT = SegmentationSettings(epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_masked_scenes(folder, "train", 48, 0)
    return write_masked_scenes(folder, "val", 16, 0)


def missing(may_be_missing: bool) -> Entrant:
    def open_it(device: str):
        raise CheckpointError("It is gone. Put it back.")

    return Entrant(role="teacher", name="teacher of another", open=open_it, may_be_missing=may_be_missing)


def test_a_teacher_tells_ground_from_digits_better_than_a_random_start(scenes):
    settings = SegmentationSettings(epochs=12, batch_size=8)
    found = segment([named_teacher("demo"), random_start("demo", 0)], scenes, settings=settings)
    start, teacher = found.subjects
    assert (start.name, teacher.name) == ("random start of demo", "teacher demo")
    assert teacher.score.mean_iou.value > start.score.mean_iou.value + 0.05
    assert teacher.score.mean_iou.low <= teacher.score.mean_iou.value <= teacher.score.mean_iou.high


def test_the_same_seed_gives_the_same_table_and_somebody_missing_is_a_line_of_it(scenes, capsys):
    who = [missing(may_be_missing=True), random_start("demo", 0)]
    first, again = (segment(who, scenes, settings=SHORT, seed=3) for _ in range(2))
    assert first.mapping() == again.mapping()
    assert first.question() != segment(who, scenes, settings=SHORT, seed=4).question()
    print_segmentation(first)
    said = capsys.readouterr().out
    assert "not available (It is gone." in " ".join(said.replace("│", " ").split())
    assert "linear head, 16 images, 12 classes" in said


def test_somebody_who_may_not_be_missing_and_pixels_are_refused_before_masks_are_read(scenes):
    with pytest.raises(CheckpointError, match="It is gone"):
        segment([missing(may_be_missing=False)], scenes)
    with pytest.raises(ConfigError, match="Pixels have no patch tokens"):
        segment([pixels(8)], scenes)
