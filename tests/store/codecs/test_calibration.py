import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.store.codecs.calibration import choose_images

KEYS = [f"class {number % 7}/image {number}.jpg" for number in range(3000)]


def rank_by_hand(key: str, seed: int) -> int:
    parts = [str(seed).encode(), key.encode()]
    data = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "little")


def test_the_images_of_smallest_hash_calibrate_and_the_next_are_held_out():
    chosen = choose_images(KEYS, 5)
    ranked = sorted(range(3000), key=lambda image: rank_by_hand(KEYS[image], 5))
    assert chosen.calibrate == tuple(sorted(ranked[:2048]))
    assert chosen.held_out == tuple(sorted(ranked[2048:2560]))


def test_the_order_of_the_source_does_not_matter():
    forwards, backwards = choose_images(KEYS, 0), choose_images(KEYS[::-1], 0)
    assert {KEYS[image] for image in forwards.calibrate} == {KEYS[::-1][image] for image in backwards.calibrate}


def test_another_seed_chooses_others():
    one, other = (set(choose_images(KEYS, seed, calibrate=100).calibrate) for seed in (0, 1))
    assert len(one & other) < 20


@given(count=st.integers(0, 40), calibrate=st.integers(1, 20), held_out=st.integers(1, 10))
def test_no_image_both_calibrates_and_judges(count, calibrate, held_out):
    chosen = choose_images(KEYS[:count], 0, calibrate=calibrate, held_out=held_out)
    assert not set(chosen.calibrate) & set(chosen.held_out)
    assert len(chosen.calibrate) <= calibrate
    assert len(chosen.held_out) <= held_out
    assert bool(chosen.calibrate) == (count > 0)
    assert bool(chosen.held_out) == (count > 1)


@pytest.mark.parametrize(("count", "calibrate", "held_out"), [(10, 8, 2), (2560, 2048, 512), (2559, 2047, 512)])
def test_of_a_small_source_four_in_five_calibrate(count, calibrate, held_out):
    chosen = choose_images(KEYS[:count], 0)
    assert (len(chosen.calibrate), len(chosen.held_out)) == (calibrate, held_out)


def test_keys_that_are_no_utf8_are_chosen_too():
    assert choose_images(["a\udcff.jpg"], 0).calibrate == (0,)
