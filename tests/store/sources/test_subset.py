"""Parts of a source: a function of the keys alone, one within another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import ConfigError, SourceError
from caev2.store.images import ImageSource, open_images
from caev2.store.sources.subset import Subset, choose_listed
from tests.store.sources.written import write_files


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> ImageSource:
    folder = tmp_path_factory.mktemp("set")
    for place, count in (("ant", 40), ("bee", 30), ("cat", 30)):
        write_files(folder / place, {f"{number:02d}.png": f"{place}{number}".encode() for number in range(count)})
    return open_images(folder)


@given(limit=st.integers(1, 120), more=st.integers(0, 50), seed=st.integers(0, 5))
def test_a_smaller_part_is_within_a_larger_one_of_the_same_seed(source, limit, more, seed):
    small, large = (Subset(limit=count, seed=seed).of(source) for count in (limit, limit + more))
    assert len(small) == min(limit, 100)
    assert set(small.keys) <= set(large.keys)
    assert list(small.keys) == sorted(small.keys)


@given(numbers=st.sets(st.integers(0, 99), min_size=1), share=st.floats(0.01, 1))
def test_the_choice_among_some_images_depends_on_nothing_else(source, numbers, share):
    """Of the images that are in both, the better ranked one is taken first, whatever lies beside them."""
    whole, some = Subset(share=share).of(source), Subset(limit=len(numbers) // 2 + 1).of(source.take(sorted(numbers)))
    present = {source.keys[number] for number in numbers}
    one, other = present & set(whole.keys), set(some.keys)
    assert one <= other or other <= one


def test_a_share_is_exact_and_another_seed_takes_others(source):
    parts = [Subset(share=0.3, seed=seed).of(source) for seed in (0, 0, 1)]
    assert [len(part) for part in parts] == [30, 30, 30]
    assert parts[0].digest() == parts[1].digest() != parts[2].digest()
    assert parts[0].classes == source.classes
    assert len(Subset(share=0.001).of(source)) == 1
    assert len(Subset(share=0.3, limit=7).of(source)) == 7
    frozen = ("ant/05.png", "ant/28.png", "cat/28.png")  # as on 2026-11-24: stores name their images by this choice
    assert Subset(limit=3).of(source).keys == frozen


def test_some_classes_are_the_folder_that_has_these_alone(source, tmp_path):
    for place, count in (("ant", 40), ("cat", 30)):
        write_files(tmp_path / place, {f"{number:02d}.png": b"" for number in range(count)})
    part = Subset(classes=("cat", "ant")).of(source)
    assert part.digest() == open_images(tmp_path).digest()
    assert part.read(part.keys.index("cat/07.png")) == b"cat7"
    assert len(Subset(classes=("bee",), share=0.5).of(source)) == 15


def test_a_store_of_a_part_finds_its_images_in_the_whole(source):
    for subset in (Subset(limit=9), Subset(classes=("bee", "cat"), share=0.2)):
        part = subset.of(source)
        found = choose_listed(source, part.keys, part.classes)
        assert found.digest() == part.digest()
        assert [found.read(place) for place in range(len(part))] == [part.read(place) for place in range(len(part))]


@pytest.mark.parametrize(
    "settings", [{"share": 0.0}, {"share": 1.5}, {"share": float("nan")}, {"limit": 0}, {"classes": ()}]
)
def test_parts_of_nothing_are_refused(settings):
    with pytest.raises(ConfigError):
        Subset(**settings)


def test_a_class_that_does_not_exist_is_refused_and_the_nearest_offered(source, tmp_path):
    with pytest.raises(ConfigError, match=r"no class called 'cta'.*cat"):
        Subset(classes=("cta",)).of(source)
    write_files(tmp_path, {"a.png": b""})
    with pytest.raises(SourceError, match="no classes to choose from"):
        Subset(classes=("a",)).of(open_images(tmp_path))
