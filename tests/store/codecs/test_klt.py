import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caev2.store.codecs.codec import decode
from caev2.store.codecs.gaussian import distortion
from caev2.store.codecs.klt import GROUPS, KltCodec, allocate_bits
from caev2.store.codecs.lloyd4 import Lloyd4Codec
from caev2.store.codecs.packing import packed_bytes
from tests.store.codecs.made_up import make_rows


def bytes_of(bits):
    return sum(packed_bytes(int(np.count_nonzero(bits == group)), group) for group in GROUPS)


@settings(max_examples=60)
@given(
    shares=hnp.arrays(float, st.integers(1, 70), elements=st.floats(0, 1)),
    token_bytes=st.integers(1, 80),
)
def test_bits_stay_within_the_bytes_and_never_favour_the_smaller_axis(shares, token_bytes):
    bits = allocate_bits(shares, token_bytes)
    assert bytes_of(bits) <= token_bytes
    assert (bits[shares == 0] == 0).all()
    ordered = bits[np.argsort(-shares, kind="stable")]
    assert (np.diff(ordered) <= 0).all()


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("width", "token_bytes"), [(128, 31), (128, 64), (512, 124), (512, 256), (768, 186)])
def test_the_error_is_near_the_least_that_so_many_bits_could_leave(decay, width, token_bytes):
    shares = (1.0 + np.arange(width)) ** -decay
    found = np.dot(shares, [distortion(int(one)) for one in allocate_bits(shares, token_bytes)])
    # single bits, each where it gains most, in no whole bytes: no allocation can do better
    steps = [0, *reversed(GROUPS)]
    gains = [
        (share * (distortion(low) - distortion(high)) / (high - low), high - low)
        for share in shares
        for low, high in itertools.pairwise(steps)
    ]
    bits = sorted((gain for gain, count in gains for _ in range(count)), reverse=True)[: 8 * token_bytes]
    assert shares.sum() - sum(bits) <= found * (1 + 1e-9)
    assert found <= 1.06 * (shares.sum() - sum(bits))


def test_enough_bytes_give_every_axis_eight_bits():
    assert (allocate_bits(np.ones(10), 10) == 8).all()


def test_at_equal_bytes_uneven_axes_are_kept_better_than_by_lloyd4():
    rows = make_rows(rows=400, width=64, spread=1.5)
    errors = []
    for codec in (KltCodec(32), Lloyd4Codec()):
        assert codec.row_type(9, 64).row_bytes == 9 * 34
        tables = codec.fit(rows[:300])
        errors.append(np.square(rows[300:] - decode(codec, codec.encode(rows[300:], tables), tables)).sum())
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("spare", [0, 5])
def test_bytes_that_no_axis_needs_are_zero(spare):
    codec, rows = KltCodec(32 + spare), make_rows()
    codes = codec.encode(rows, codec.fit(rows)).codes
    assert not codes[..., 32:].any()
    assert codes[..., :32].any(axis=(0, 1)).all()
