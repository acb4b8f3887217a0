import numpy as np
import pytest

from caev2.errors import StoreCorrupt
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.tables import tables_digest
from tests.store.codecs.made_up import NORMALISING, make_rows

ONE = {"mean": np.zeros((2, 3), np.float32), "scale": np.ones((2, 3), np.float32)}


def test_the_digest_does_not_depend_on_order_byte_order_or_memory_layout():
    other = {"scale": np.asfortranarray(ONE["scale"]).astype(">f4"), "mean": ONE["mean"]}
    assert tables_digest(ONE) == tables_digest(other)


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"mean": ONE["mean"]},
        {"mean": ONE["scale"], "scale": ONE["mean"]},
        {**ONE, "scale": ONE["scale"].reshape(3, 2)},
        {**ONE, "scale": ONE["scale"].view(np.int32)},
        {**ONE, "scale": np.nextafter(ONE["scale"], 2)},
        {"mea": ONE["mean"], "nscale": ONE["scale"]},
    ],
    ids=["none", "fewer", "swapped", "shape", "type", "last bit", "names"],
)
def test_any_other_tables_have_another_digest(other):
    assert tables_digest(ONE) != tables_digest(other)


def test_the_digest_is_frozen():
    assert tables_digest(ONE) == "8f636c4bf97b5af01e588432b463051f8239cd72f3426cc69f0acc5a2e188c26"


@pytest.mark.parametrize("name", NORMALISING)
def test_tables_of_another_codec_are_refused(name):
    codec, others = codec_named(name), codec_named("klt" if name.startswith("pq") else "pq").fit(make_rows())
    with pytest.raises(StoreCorrupt, match=name):
        codec.plan(others)
    with pytest.raises(StoreCorrupt, match=name):
        codec.encode(make_rows(), others)


@pytest.mark.parametrize("name", NORMALISING)
def test_a_table_that_is_not_finite_is_refused(name):
    codec = codec_named(name)
    tables = codec.fit(make_rows())
    tables["mean"][0, 0] = np.nan
    with pytest.raises(StoreCorrupt, match="'mean'"):
        codec.plan(tables)
