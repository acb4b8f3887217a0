"""`caev2 store convert`: some targets of a store alone, and a codec that is taken whatever it loses."""

import pytest

from caev2.store.reader import Store
from tests.commands.invoking import EXTRACT, caev2, files_of, refusal

TAPS = ("--set", 'taps=["projected", "post_norm"]')


@pytest.fixture(scope="module")
def both(made, tmp_path_factory):
    """A store of two targets; not to be written to."""
    store = tmp_path_factory.mktemp("both") / "store"
    assert caev2("extract", made / "images", store, *EXTRACT, *TAPS).exit_code == 0
    return store


def test_only_the_targets_that_are_named_are_written(both, tmp_path):
    done = caev2("store", "convert", both, tmp_path / "one", "--targets", "post_norm", "--quiet")
    assert done.exit_code == 0, done.output
    one, whole = Store(tmp_path / "one"), Store(both)
    assert list(one.manifest.spec.targets) == ["post_norm"]
    assert (one.read_rows("post_norm", 0, [3]) == whole.read_rows("post_norm", 0, [3])).all()


def test_a_target_that_is_not_there_is_refused(both, tmp_path):
    said = refusal("store", "convert", both, tmp_path / "one", "--targets", "projected,blocks")
    assert "holds the targets ['post_norm', 'projected'], asked for were ['blocks', 'projected']" in said
    assert not (tmp_path / "one").exists()


def test_targets_of_a_copy_for_keeping_are_refused(both, tmp_path):
    convert = ("store", "convert", both, tmp_path / "cold", "--lossless", "zstd")
    assert "of the store as it is" in refusal(*convert, "--targets", "projected")
    assert caev2(*convert, "--quiet").exit_code == 0
    thaw = ("store", "convert", tmp_path / "cold", tmp_path / "back")
    assert "bring the store back first" in refusal(*thaw, "--targets", "projected")
    assert "bring the store back first" in refusal(*thaw, "--any-quality")


def test_what_a_codec_loses_is_refused_but_where_one_wants_to_measure_it(both, tmp_path):
    convert = ("store", "convert", both, tmp_path / "bits", "--codec", "lloyd4", "--quiet")
    assert "is not faithful enough" in refusal(*convert)
    assert "is not faithful enough" in refusal(*convert, "--any-quality", "--set", "floor.relative_error=1e-9")
    assert files_of(tmp_path / "bits") == {}
    done = caev2(*convert, "--any-quality")
    assert done.exit_code == 0, done.output
    assert {target.codec for target in Store(tmp_path / "bits").manifest.spec.targets.values()} == {"lloyd4"}
