import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caev2.store.codecs.packing import byte_values, pack_columns, packed_bytes, unpack


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@given(data=st.data())
def test_packing_and_unpacking_returns_the_codes_of_any_number_of_channels(bits, data):
    shape = data.draw(st.tuples(st.integers(1, 19), st.integers(0, 4)))
    codes = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    packed = pack_columns(codes, bits)
    assert packed.shape == (packed_bytes(len(codes), bits), codes.shape[1])
    assert (unpack(packed.T, bits, len(codes)) == codes.T).all()


def test_the_first_of_two_channels_lies_in_the_low_bits():
    assert pack_columns(np.array([[0x3], [0xA], [0x7]], np.uint8), 4).tolist() == [[0xA3], [0x07]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_one_lookup_of_a_byte_is_the_lookup_of_its_codes(bits):
    levels = np.linspace(-1, 1, 2**bits, dtype=np.float32)
    every_byte = np.arange(256, dtype=np.uint8)[:, None]
    assert (byte_values(levels, bits)[0] == levels[unpack(every_byte, bits, 8 // bits)]).all()
