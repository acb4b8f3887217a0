"""The built-in images, 64 pixels a side: a photograph as ground, small clutter, one large handwritten digit.

The digit is the class. Colour and ground are labels too, but poor bars: a random encoder reads colour
almost perfectly. A scene is a pure function of (seed, split, index): first its plan is drawn, plain
numbers, then painted. Scenes of `train` and `val` share neither a handwritten digit nor a pixel of any
photograph.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from caev2.demo.glyphs import SHAPE_GLYPHS, Split, digit_glyphs, enlarge_glyph, glyphs_of_split
from caev2.demo.photographs import PHOTOGRAPH_FILES, photograph
from caev2.errors import ConfigError, OutputError
from caev2.progress import Progress, Silent
from caev2.store.draws import Draws

SCENE_PX = 64
MAX_EXTRAS = 2
GROUNDS = tuple(PHOTOGRAPH_FILES)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "orange": (245, 145, 30),
    "yellow": (245, 230, 60),
    "green": (50, 175, 70),
    "cyan": (60, 215, 225),
    "blue": (55, 90, 225),
    "magenta": (215, 70, 205),
    "white": (245, 245, 245),
}
SEGMENT_SHAPE = 11
"""In a segmentation map 0 is ground, 1 + d the digit d, and this any shape."""

_RIM_COLOUR = (20, 20, 20)
_TRAIN_SHARE = 0.72  # of the longer side of a photograph; the rest is val's, never under 107 pixels
_GROUND_SIDE_PX = (64, 104)  # of a crop: fits every region, so that both splits see one scale
_LARGE_SIDE_PX = (42.0, 54.0)
_LARGE_SHIFT_PX = 6.0
_EXTRA_SIDE_PX = (14.0, 24.0)
_MAX_ANGLE = 0.2  # radians, and the same for shear
_SHAPE_SHARE = 0.5  # of the clutter; the other half is digits


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedObject:
    """One digit or shape of a scene, as numbers."""

    digit: int | None
    """0 .. 9, or None for a shape."""
    glyph: int
    """Index among all handwritten digits, or among the shapes."""
    colour: int
    side_px: float
    """What the glyph's 8 cells measure on the scene."""
    centre: tuple[float, float]
    """x and y on the scene, in pixels."""
    angle: float
    shear: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePlan:
    """Everything that decides a scene's pixels."""

    split: Split
    ground: int
    """Index into `GROUNDS`."""
    ground_box: tuple[int, int, int]
    """Left, top and side of the crop, in pixels of the split's region of the photograph."""
    objects: tuple[PlannedObject, ...]
    """In the order of painting: the large digit is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A painted scene and its labels."""

    image: UInt8[np.ndarray, "64 64 3"]
    digit: int
    """The class: which digit the large one is."""
    colour: int
    """Of the large digit: index into `COLOURS`."""
    ground: int
    """Index into `GROUNDS`."""
    segmentation: UInt8[np.ndarray, "64 64"]
    """0 ground, 1 + d a digit d, 11 a shape; outlines belong to their object."""


@cache
def ground_region(ground: int, split: Split) -> UInt8[np.ndarray, "height width 3"]:
    """The part of a photograph that `split` may crop: one side of a cut across its longer axis."""
    pixels = photograph(GROUNDS[ground])
    axis = int(pixels.shape[1] > pixels.shape[0])
    cut = math.floor(pixels.shape[axis] * _TRAIN_SHARE)
    train, val = np.split(pixels, [cut], axis=axis)
    return train if split == "train" else val


def _draw_object(draws: Draws, split: Split, is_large: bool) -> PlannedObject:
    is_shape = not is_large and draws.uniform() < _SHAPE_SHARE
    if is_shape:
        digit, glyph = None, draws.integer(len(SHAPE_GLYPHS))
    else:
        digit = draws.integer(10)
        candidates = glyphs_of_split(split)[digit]
        glyph = candidates[draws.integer(len(candidates))]
    middle = SCENE_PX / 2
    reach = _LARGE_SHIFT_PX if is_large else middle
    return PlannedObject(
        digit=digit,
        glyph=glyph,
        colour=draws.integer(len(COLOURS)),
        side_px=draws.uniform(*(_LARGE_SIDE_PX if is_large else _EXTRA_SIDE_PX)),
        centre=(draws.uniform(middle - reach, middle + reach), draws.uniform(middle - reach, middle + reach)),
        angle=draws.uniform(-_MAX_ANGLE, _MAX_ANGLE),
        shear=draws.uniform(-_MAX_ANGLE, _MAX_ANGLE),
    )


def plan_scene(seed: int, split: Split, index: int, *, max_extras: int = MAX_EXTRAS) -> ScenePlan:
    """Draws the numbers of one scene.

    Args:
        seed: Of the whole set; 0 .. 9 are the demo's own and were never used to train its teacher.
        split: Decides which glyphs and which parts of the photographs may appear.
        index: Of the scene in its split.
        max_extras: Small objects behind the large digit: 0 .. this many, evenly.
    """
    draws = Draws("scene", seed, split, index)
    ground = draws.integer(len(GROUNDS))
    height, width, _ = ground_region(ground, split).shape
    low, high = _GROUND_SIDE_PX
    side = low + draws.integer(high - low + 1)
    ground_box = (draws.integer(width - side + 1), draws.integer(height - side + 1), side)
    extras = draws.integer(max_extras + 1)
    objects = (*(_draw_object(draws, split, False) for _ in range(extras)), _draw_object(draws, split, True))
    return ScenePlan(split=split, ground=ground, ground_box=ground_box, objects=objects)


def _paint_ground(plan: ScenePlan) -> Float32[np.ndarray, "64 64 3"]:
    left, top, side = plan.ground_box
    crop = ground_region(plan.ground, plan.split)[top : top + side, left : left + side]
    resized = Image.fromarray(crop).resize((SCENE_PX, SCENE_PX), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _object_matrix(thing: PlannedObject) -> Float[np.ndarray, "2 2"]:
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    return np.array([[1, thing.shear], [0, 1]]) @ np.array([[cos, sin], [-sin, cos]]) * (8 / thing.side_px)


def _paint_object(
    pixels: Float32[np.ndarray, "64 64 3"], segments: UInt8[np.ndarray, "64 64"], thing: PlannedObject
) -> None:
    """Paints onto `pixels` and `segments`, touching only the tile that the glyph can reach."""
    reach = 0.9 * thing.side_px  # half the diagonal of ten cells, most of it empty
    x, y = thing.centre
    left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    right, bottom = min(SCENE_PX, math.ceil(x + reach)), min(SCENE_PX, math.ceil(y + reach))
    glyph = SHAPE_GLYPHS[thing.glyph] if thing.digit is None else digit_glyphs()[0][thing.glyph]
    centre, size = (x - left, y - top), (right - left, bottom - top)
    ink, rim = enlarge_glyph(glyph, _object_matrix(thing), centre, size)
    tile = pixels[top:bottom, left:right]
    for opacity, colour in ((rim, _RIM_COLOUR), (ink, tuple(COLOURS.values())[thing.colour])):
        tile += opacity[..., None] * (np.array(colour, dtype=np.float32) - tile)
    label = SEGMENT_SHAPE if thing.digit is None else 1 + thing.digit
    segments[top:bottom, left:right][rim >= 0.5] = label


def paint_scene(plan: ScenePlan) -> Scene:
    """Paints a plan: ground, then its objects in order."""
    pixels = _paint_ground(plan)
    segments = np.zeros((SCENE_PX, SCENE_PX), dtype=np.uint8)
    for thing in plan.objects:
        _paint_object(pixels, segments, thing)
    large = plan.objects[-1]
    assert large.digit is not None, "the last object of a plan is its large digit"
    return Scene(
        image=np.round(pixels).astype(np.uint8),
        digit=large.digit,
        colour=large.colour,
        ground=plan.ground,
        segmentation=segments,
    )


def draw_scene(seed: int, split: Split, index: int, *, max_extras: int = MAX_EXTRAS) -> Scene:
    """Scene `index` of a split, the same whatever was drawn before; arguments as in `plan_scene`."""
    return paint_scene(plan_scene(seed, split, index, max_extras=max_extras))


def _save_png(pixels: UInt8[np.ndarray, "..."], path: Path) -> None:
    """A whole file or none: what a kill leaves behind is `.part`, and the next run replaces it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    Image.fromarray(pixels).save(part, format="png", compress_level=1)  # 1 % larger than level 6, in half the time
    part.replace(path)


def _refuse_strangers(tree: Path, files: set[Path]) -> None:
    """Another seed's or a longer set's scenes would silently become part of this one."""
    strangers = {path.relative_to(tree) for path in tree.rglob("*.png")} - files
    if strangers:
        raise OutputError(
            f"{tree}: holds {len(strangers)} PNG files that are not among the {len(files)} scenes to be"
            f" written, such as {min(strangers)}; choose an empty folder"
        )


def write_scenes(
    folder: Path,
    split: Split,
    count: int,
    seed: int,
    progress: Progress | None = None,
    *,
    with_segmentation: bool = False,
) -> Path:
    """Writes scenes 0 .. count−1 of a split as `folder/<split>/<digit>/<index>.png`.

    Interrupted and run again, it leaves the same files as one run. `draw_scene` is pure, so whoever wants the
    scenes on several cores may map it over indices.

    Args:
        folder: Made if missing.
        split: Which scenes.
        count: How many, at least 1.
        seed: Of the set.
        progress: Who is told.
        with_segmentation: Also writes the maps, as `folder/segmentation/<split>/<digit>/<index>.png`.

    Returns:
        `folder`, an ImageFolder pair once both splits are written.

    Raises:
        ConfigError: `count` is below 1, or the extras of the demo are not installed.
        OutputError: the folder cannot be written, or holds other scenes.
    """
    if count < 1:
        raise ConfigError(f"demo: {count} {split} scenes were asked for; ask for at least 1")
    digits = [plan_scene(seed, split, index).objects[-1].digit for index in range(count)]
    files = [Path(str(digit), f"{index:06d}.png") for index, digit in enumerate(digits)]
    progress = progress or Silent()
    try:
        _refuse_strangers(folder / split, set(files))
        progress.start(f"{split} scenes", count)
        for index, file in enumerate(files):
            scene = draw_scene(seed, split, index)
            _save_png(scene.image, folder / split / file)
            if with_segmentation:
                _save_png(scene.segmentation, folder / "segmentation" / split / file)
            progress.advance(1)
    except OSError as refused:
        raise OutputError(
            f"{folder}: scenes cannot be written there ({refused}); choose a writable folder"
        ) from refused
    progress.finish()
    return folder
