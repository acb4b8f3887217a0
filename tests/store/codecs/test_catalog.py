import pytest

from caev2.errors import ConfigError
from caev2.store.codecs.catalog import CODECS, codec_named


@pytest.mark.parametrize("name", [*CODECS, "klt:256", "pq:1"])
def test_a_codec_is_found_by_the_name_it_gives_itself(name):
    assert codec_named(name).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("loyd4", "lloyd4"),
        ("lloyd4:8", "no codec"),
        ("klt:", "klt:124"),
        ("klt:0", "klt:124"),
        ("pq:-3", "pq:124"),
        ("pq:007", "pq:124"),
        ("klt:²", "klt:124"),
        ("", "Known"),
    ],
)
def test_any_other_name_is_refused_with_a_hint(name, hint):
    with pytest.raises(ConfigError, match=hint):
        codec_named(name)
