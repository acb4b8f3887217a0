"""Sizes in words."""

import pytest

from caev2.store.disk import say_bytes


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_030_000_000_000, "1.0 TB"), (2 * 10**15, "2000.0 TB")],
)
def test_sizes_are_said_in_powers_of_ten(count, said):
    assert say_bytes(count) == said
