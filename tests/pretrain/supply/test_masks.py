import math

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import ConfigError
from caev2.pretrain.supply.masks import MaskSettings, _draw_blocks, draw_masks
from caev2.store.draws import Draws
from tests.pretrain.parity import STATISTICS

ROWS = 20_000
GOLDEN = """\
....####
..######
..######
....####
....####
........
........
........"""


def grids_of(masked: np.ndarray, side: int) -> np.ndarray:
    grids = np.zeros((len(masked), side * side), dtype=bool)
    np.put_along_axis(grids, masked, True, axis=1)
    return grids.reshape(-1, side, side)


def block_mask(draws: Draws, side: int, settings: MaskSettings) -> np.ndarray:
    """The generator as one would write it: an array, and a call for each draw."""
    mask = np.zeros((side, side), dtype=bool)
    limit, left = math.log(settings.max_aspect), settings.count
    while left:
        area = draws.uniform(float(settings.min_block_patches), float(left))
        aspect = math.exp(draws.uniform(-limit, limit))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= side or width >= side:
            continue
        top, start = draws.integer(side - height + 1), draws.integer(side - width + 1)
        rectangle = mask[top : top + height, start : start + width]
        fresh = height * width - int(np.count_nonzero(rectangle))
        if 0 < fresh <= left:
            rectangle[:] = True
            left -= fresh
    return mask


def random_mask(draws: Draws, side: int, settings: MaskSettings) -> np.ndarray:
    mask = np.zeros(side**2, dtype=bool)
    mask[draws.permutation(side**2)[: settings.count]] = True
    return mask.reshape(side, side)


@pytest.mark.parametrize("one_by_one", [block_mask, random_mask])
@pytest.mark.parametrize(
    ("count", "side", "smallest"), [(30, 14, 16), (49, 14, 16), (98, 14, 16), (6, 4, 2), (24, 8, 9)]
)
def test_masks_of_a_batch_are_those_drawn_row_by_row(one_by_one, count, side, smallest):
    kind = "block" if one_by_one is block_mask else "random"
    settings = MaskSettings(kind=kind, count=count, min_block_patches=smallest)
    rows = [0, 7, *np.random.default_rng(0).integers(0, 2**40, 200).tolist()]
    grids = grids_of(draw_masks(settings, side, seed=3, epoch=5, rows=rows)[1], side)
    for row, grid in zip(rows, grids, strict=True):
        assert np.array_equal(grid, one_by_one(Draws("mask", 3, 5, row), side, settings)), row


class Scripted(Draws):
    """A stream that begins with some words."""

    def __init__(self, words: list[int]):
        super().__init__("after the script")
        self._script = iter(words)

    def word(self) -> int:
        return next(self._script, None) or super().word()


@pytest.mark.parametrize("rejected", [(2,), (3,), (2, 3), (2, 3, 4), (3, 4, 5)])
def test_words_that_are_no_multiple_are_drawn_again(rejected):
    """One word in 2**60 is: no seed that anyone has tried meets it."""
    words = [2**63 + 977 * place for place in range(12)]
    for place in rejected:
        words[place] = 2**64 - 1
    settings = MaskSettings(count=30)
    masked = _draw_blocks(Scripted(words).word, 14, settings)
    bits = [bool(masked >> patch & 1) for patch in range(14 * 14)]
    assert bits == block_mask(Scripted(words), 14, settings).ravel().tolist()


def test_no_rows_have_no_masks():
    visible, masked = draw_masks(MaskSettings(count=20), 8, seed=0, epoch=0, rows=[])
    assert (visible.shape, masked.shape) == ((0, 44), (0, 20))


@pytest.fixture
def unchecked_shapes():
    """Checking the type of every single draw would take ten times as long as drawing."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("count", [30, 49, 98])
def test_block_masks_fall_where_the_published_ones_fall(count):
    published = STATISTICS["block_mask_14x14"][str(count)]
    marginal = np.array(published["marginal"])
    _, masked = draw_masks(MaskSettings(count=count), 14, seed=0, epoch=0, rows=range(ROWS))
    grids = grids_of(masked, 14)
    assert (grids.sum((1, 2)) == count).all()
    tolerance = 5 * np.sqrt(2 * marginal * (1 - marginal) / ROWS)
    assert (np.abs(grids.mean(0) - marginal) <= tolerance).all()
    border = (grids[:, 1:] != grids[:, :-1]).sum() + (grids[:, :, 1:] != grids[:, :, :-1]).sum()
    assert border / ROWS == pytest.approx(published["mean_boundary_edges"], rel=0.01)


def test_random_masks_fall_everywhere_alike():
    _, masked = draw_masks(MaskSettings(kind="random", count=49), 14, seed=0, epoch=0, rows=range(4000))
    share = grids_of(masked, 14).mean(0)
    assert (np.abs(share - 0.25) <= 5 * np.sqrt(0.25 * 0.75 / 4000)).all()


@given(
    kind=st.sampled_from(["block", "random"]),
    side=st.integers(2, 16),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**63),
    smallest=st.integers(1, 20),
)
def test_visible_and_masked_patches_are_sorted_and_share_the_image(kind, side, share, seed, smallest):
    count = max(1, int(share * (side * side - 1)))
    settings = MaskSettings(kind=kind, count=count, min_block_patches=smallest)
    try:
        settings.check(side)
    except ConfigError:
        return  # what passes the check must end; what does not is tested below
    visible, masked = draw_masks(settings, side, seed, epoch=0, rows=[3, 4])
    assert masked.shape == (2, count)
    for one in range(2):
        together = np.concatenate([visible[one], masked[one]])
        assert sorted(together.tolist()) == list(range(side * side))
        assert (np.diff(visible[one]) > 0).all()
        assert (np.diff(masked[one]) > 0).all()


def test_a_mask_depends_on_its_seed_epoch_and_row_alone():
    settings = MaskSettings(count=20)
    together = draw_masks(settings, 8, seed=1, epoch=2, rows=[7, 8, 9])[1]
    alone = draw_masks(settings, 8, seed=1, epoch=2, rows=np.array([8]))[1]
    assert np.array_equal(together[1], alone[0])
    for seed, epoch, row in ((2, 2, 8), (1, 3, 8), (1, 2, 9)):
        assert not np.array_equal(draw_masks(settings, 8, seed, epoch, [row])[1], alone)


def test_the_first_masks_are_what_they_have_always_been():
    """Golden: this project's own first draws. Runs could not be replayed if they changed."""
    picture = "\n".join(
        "".join(".#"[cell] for cell in row)
        for row in grids_of(draw_masks(MaskSettings(count=24), 8, seed=0, epoch=0, rows=[0])[1], 8)[0].astype(int)
    )
    assert picture == GOLDEN


@pytest.mark.parametrize(
    ("settings", "side", "words"),
    [
        (MaskSettings(count=64), 8, "must stay visible"),
        (MaskSettings(count=65, kind="random"), 8, "at most 63"),
        (MaskSettings(count=3), 2, "would never end: with 3 left"),
        (MaskSettings(count=40, max_aspect=1.0), 8, "Lower min_block_patches or raise max_aspect"),
    ],
)
def test_masks_that_cannot_be_drawn_are_refused_before_drawing(settings, side, words):
    with pytest.raises(ConfigError, match=words):
        settings.check(side)


@pytest.mark.parametrize("change", [{"count": 0}, {"min_block_patches": 0}, {"max_aspect": 0.5}])
def test_settings_below_one_are_refused(change):
    with pytest.raises(ConfigError, match="at least 1"):
        MaskSettings(**({"count": 5} | change))
