"""`--part i/n`: every unit is computed once, and the last part seals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import ConfigError
from caev2.extract.parts import Part, parse_part
from caev2.extract.run import extract
from caev2.store.manifest import read_manifest
from tests.extract.engines.conftest import IMAGES, RECIPE, UNITS, files_of


@given(blocks=st.integers(0, 300), count=st.integers(1, 40))
def test_parts_share_all_blocks_evenly(blocks, count):
    shares = [Part(number, count).choose(range(blocks), blocks) for number in range(1, count + 1)]
    assert [block for share in shares for block in share] == list(range(blocks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "-1/2", "1/2 "])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ConfigError, match="part"):
        parse_part(text)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_two_parts_leave_the_bytes_of_one_process(photographs, undisturbed, tmp_path, order):
    store = tmp_path / "store"
    first = extract(photographs, store, RECIPE, part=Part(order[0], 2))
    assert (first.root_digest, first.missing_units) == (None, UNITS // 2)
    assert read_manifest(store).state == "building"
    again = extract(photographs, store, RECIPE, part=Part(order[0], 2))
    assert again.rows_computed == 0
    last = extract(photographs, store, RECIPE, part=Part(order[1], 2))
    assert last.missing_units == 0
    assert first.rows_computed + last.rows_computed == IMAGES * RECIPE.view_count
    assert files_of(store) == undisturbed


def test_the_command_without_a_part_computes_what_is_missing(photographs, undisturbed, tmp_path):
    extract(photographs, tmp_path / "store", RECIPE, part=Part(3, 5))
    extract(photographs, tmp_path / "store", RECIPE)
    assert files_of(tmp_path / "store") == undisturbed
