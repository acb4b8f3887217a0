"""Scenes: disjoint splits, true labels, the same pixels every time."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from caev2.demo.glyphs import SHAPE_GLYPHS, digit_glyphs, enlarge_glyph, glyphs_of_split
from caev2.demo.photographs import photograph
from caev2.demo.scenes import (
    COLOURS,
    GROUNDS,
    SEGMENT_SHAPE,
    Scene,
    draw_scene,
    ground_region,
    paint_scene,
    plan_scene,
    write_scenes,
)
from caev2.errors import ConfigError, OutputError
from caev2.progress import Silent

splits = st.sampled_from(["train", "val"])
indices = st.integers(0, 10**6)


def assert_same_scene(one: Scene, other: Scene) -> None:
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.segmentation, other.segmentation)
    assert (one.digit, one.colour, one.ground) == (other.digit, other.colour, other.ground)


def colour_of(scene: Scene) -> tuple[int, int, int]:
    return tuple(COLOURS.values())[scene.colour]


# ---------------------------------------------------------------- train and val share nothing


def test_every_glyph_belongs_to_one_split():
    train, val = ([glyph for glyphs in glyphs_of_split(split) for glyph in glyphs] for split in ("train", "val"))
    assert (len(train), len(val)) == (1347, 450)
    assert sorted(train + val) == list(range(1797))


def test_no_digit_was_scanned_twice_into_both_splits():
    cells = digit_glyphs()[0]
    train, val = (
        {cells[glyph].tobytes() for glyphs in glyphs_of_split(split) for glyph in glyphs} for split in ("train", "val")
    )
    assert not train & val


@pytest.mark.parametrize("ground", range(len(GROUNDS)), ids=GROUNDS)
def test_the_two_regions_of_a_photograph_are_apart_and_make_the_whole(ground):
    whole, train, val = (
        photograph(GROUNDS[ground]),
        ground_region(ground, "train"),
        ground_region(ground, "val"),
    )
    assert np.shares_memory(train, whole)
    assert np.shares_memory(val, whole)
    assert not np.shares_memory(train, val)
    axis = int(whole.shape[1] > whole.shape[0])
    assert np.array_equal(np.concatenate([train, val], axis=axis), whole)


@given(st.integers(0, 10**9), splits, indices, st.integers(0, 4))
def test_a_plan_stays_within_its_split(seed, split, index, max_extras):
    plan = plan_scene(seed, split, index, max_extras=max_extras)
    left, top, side = plan.ground_box
    height, width, _ = ground_region(plan.ground, split).shape
    assert 0 <= left <= left + side <= width
    assert 0 <= top <= top + side <= height
    assert 1 <= len(plan.objects) <= 1 + max_extras
    for thing in plan.objects:
        if thing.digit is None:
            assert thing.glyph in range(len(SHAPE_GLYPHS))
        else:
            assert thing.glyph in glyphs_of_split(split)[thing.digit]


# ---------------------------------------------------------------- labels are true


def test_glyphs_carry_the_digits_that_scikit_learn_says_they_are():
    digits = load_digits()
    assert np.array_equal(digit_glyphs()[0] * 16, digits.images)
    for split in ("train", "val"):
        for digit, glyphs in enumerate(glyphs_of_split(split)):
            assert (digits.target[list(glyphs)] == digit).all()


@given(splits, indices)
def test_the_large_digit_is_the_class_in_its_own_colour_over_everything_else(split, index):
    plan, scene = plan_scene(5, split, index), draw_scene(5, split, index)
    large = plan.objects[-1]
    assert (scene.digit, scene.colour, scene.ground) == (large.digit, large.colour, plan.ground)
    alone = paint_scene(replace(plan, objects=(large,)))
    inked = (alone.segmentation == 1 + scene.digit) & (alone.image == colour_of(scene)).all(-1)
    assert inked.sum() > 100
    assert (scene.segmentation[inked] == 1 + scene.digit).all()
    assert (scene.image[inked] == colour_of(scene)).all()
    assert large.side_px > max((thing.side_px for thing in plan.objects[:-1]), default=0)


@given(splits, indices)
def test_a_segmentation_map_names_the_objects_of_the_plan_and_nothing_else(split, index):
    plan, scene = plan_scene(5, split, index), draw_scene(5, split, index)
    planned = {SEGMENT_SHAPE if thing.digit is None else 1 + thing.digit for thing in plan.objects}
    assert set(np.unique(scene.segmentation)) <= {0} | planned


@given(splits, indices)
def test_far_from_every_object_a_scene_is_its_ground(split, index):
    plan = plan_scene(5, split, index, max_extras=0)
    left, top, side = plan.ground_box
    crop = ground_region(plan.ground, split)[top : top + side, left : left + side]
    ground = np.asarray(Image.fromarray(crop).resize((64, 64), Image.Resampling.BILINEAR))
    x, y = plan.objects[-1].centre
    rows, columns = np.mgrid[:64, :64] + 0.5
    far = np.hypot(columns - x, rows - y) > plan.objects[-1].side_px  # half a diagonal of ten cells, and shear
    assert np.array_equal(paint_scene(plan).image[far], ground[far])


def test_enlarging_by_a_whole_number_without_turning_keeps_the_glyph():
    glyph = SHAPE_GLYPHS[1]  # a square of six cells
    ink, rim = enlarge_glyph(glyph, np.eye(2) / 4, (16.0, 16.0), (32, 32))
    cells = ink.reshape(8, 4, 8, 4)[:, 1:3, :, 1:3]  # the middles of the cells
    assert np.array_equal(cells.mean((1, 3)) > 0.5, glyph > 0.5)
    assert (rim >= ink).all()


# ---------------------------------------------------------------- always the same


@given(splits, indices)
def test_a_scene_is_the_same_whatever_was_drawn_before(split, index):
    before = draw_scene(3, split, index)
    draw_scene(3, split, index + 1)
    assert_same_scene(draw_scene(3, split, index), before)


def test_another_process_draws_the_same_scene():
    code = "import sys; from caev2.demo.scenes import draw_scene as d; sys.stdout.buffer.write(d(7, 'val', 3).image)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == draw_scene(7, "val", 3).image.tobytes()


@pytest.mark.parametrize("changed", [(8, "train", 3), (7, "val", 3), (7, "train", 4)])
def test_seed_split_and_index_each_make_another_scene(changed):
    assert not np.array_equal(draw_scene(*changed).image, draw_scene(7, "train", 3).image)


def test_the_plan_of_a_scene_is_the_one_the_shipped_teacher_was_trained_with():
    # frozen on the day of that training: other numbers would mean that its reported scores are of other scenes
    assert asdict(plan_scene(1001, "train", 6, max_extras=1)) == {
        "split": "train",
        "ground": GROUNDS.index("ihc"),
        "ground_box": (373, 90, 92),
        "objects": (
            {
                "digit": None,
                "glyph": 1,
                "colour": 4,
                "side_px": 14.909809591748983,
                "centre": (17.347267790946, 22.37546473994606),
                "angle": 0.1852958228175935,
                "shear": -0.09903495085696733,
            },
            {
                "digit": 5,
                "glyph": 1322,
                "colour": 2,
                "side_px": 45.80330174738635,
                "centre": (36.4290890273723, 36.246387904707966),
                "angle": -0.028825713641334794,
                "shear": 0.0394111613686588,
            },
        ),
    }


# ---------------------------------------------------------------- on disk


class Interrupt(Silent):
    """Ctrl-C after three scenes."""

    done = 0

    def advance(self, items: int, **figures: float) -> None:
        self.done += items
        if self.done == 3:
            raise KeyboardInterrupt


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_written_trees_hold_the_drawn_pixels_under_their_class(tmp_path):
    assert write_scenes(tmp_path, "val", 12, seed=4, with_segmentation=True) == tmp_path
    scenes = [draw_scene(4, "val", index) for index in range(12)]
    files = [f"{scene.digit}/{index:06d}.png" for index, scene in enumerate(scenes)]
    assert set(tree_bytes(tmp_path)) == {f"{tree}/{file}" for tree in ("val", "segmentation/val") for file in files}
    for scene, file in zip(scenes, files, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "val" / file)), scene.image)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "segmentation/val" / file)), scene.segmentation)


def test_an_interrupted_write_run_again_equals_an_uninterrupted_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "a", "train", 8, seed=4, progress=Interrupt())
    assert len(tree_bytes(tmp_path / "a")) == 3
    torn = tmp_path / "a" / "train" / str(draw_scene(4, "train", 3).digit) / "000003.part"
    torn.parent.mkdir(exist_ok=True)
    torn.write_bytes(b"\x89PNG")
    write_scenes(tmp_path / "a", "train", 8, seed=4)
    write_scenes(tmp_path / "b", "train", 8, seed=4)
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")


def test_scenes_of_another_seed_are_not_mixed_in(tmp_path):
    write_scenes(tmp_path, "train", 8, seed=4)
    before = tree_bytes(tmp_path)
    with pytest.raises(OutputError, match=r"holds \d PNG files that are not among the 8 scenes"):
        write_scenes(tmp_path, "train", 8, seed=5)
    with pytest.raises(OutputError, match="holds 2 PNG files that are not among the 6 scenes"):
        write_scenes(tmp_path, "train", 6, seed=4)
    assert tree_bytes(tmp_path) == before


@pytest.mark.parametrize("count", [0, -1])
def test_no_scenes_are_refused(tmp_path, count):
    with pytest.raises(ConfigError, match=f"{count} train scenes were asked for; ask for at least 1"):
        write_scenes(tmp_path / "out", "train", count, seed=0)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose a writable folder"):
        write_scenes(tmp_path / "file", "train", 1, seed=0)


def test_without_scikit_learn_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # what an absent package does to an import
    with pytest.raises(ConfigError, match=r'pip install "caev2\[demo,plots\]"'):
        digit_glyphs.__wrapped__()
