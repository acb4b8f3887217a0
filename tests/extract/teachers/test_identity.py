import hashlib
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caev2.extract.teachers.identity import tower_sha256
from caev2.extract.teachers.weights import read_tower

GOLDEN_RANDOM_CLIP = "af6eff83c9362e6a32be326c00baf28482381d0b5876b62eb1cd682b47bcd3dd"


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    return {f"layer.{n}.weight": torch.rand(3, n + 1, generator=generator) - 0.5 for n in range(4)}


def test_one_teacher_has_one_identity_in_all_three_kinds_of_file(small_files):
    files = vars(small_files).values()
    identities = {tower_sha256(read_tower(path).weights) for path in files}
    assert len(identities) == 1


def test_the_random_clip_is_the_same_everywhere(small_files):
    # frozen from the first run: the example's weights come from raw Philox words alone
    assert tower_sha256(read_tower(small_files.torchscript).weights) == GOLDEN_RANDOM_CLIP


def test_the_bytes_that_are_hashed_are_the_documented_ones():
    known = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(-1.5, dtype=torch.float16)}
    plain = _record(b"a:", [-1.5]) + _record(b"b:2,3", [0, 1, 2, 3, 4, 5])
    assert tower_sha256(known) == hashlib.sha256(plain).hexdigest()
    # frozen: stores carry it
    assert tower_sha256(known) == "0991e405358a02ea248917cb4f845fbf32d6d8636c9deb9f1eeb6ca76aafc564"


def _record(header, values):
    raw = struct.pack(f"<{len(values)}f", *values)
    return struct.pack("<Q", len(header)) + header + struct.pack("<Q", len(raw)) + raw


@given(data=st.data())
def test_any_changed_weight_changes_the_identity(data, weights):
    name = data.draw(st.sampled_from(sorted(weights)))
    place = data.draw(st.integers(0, weights[name].numel() - 1))
    changed = weights[name].clone()
    changed.view(-1)[place] = torch.nextafter(changed.view(-1)[place], torch.tensor(9.0))
    assert tower_sha256({**weights, name: changed}) != tower_sha256(weights)


@given(order=st.permutations(range(4)))
def test_order_does_not_count(order, weights):
    shuffled = {f"layer.{n}.weight": weights[f"layer.{n}.weight"] for n in order}
    assert tower_sha256(shuffled) == tower_sha256(weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_lower_precision_and_its_float32_are_one(dtype, weights):
    low = {name: tensor.to(dtype) for name, tensor in weights.items()}
    assert tower_sha256(low) == tower_sha256({name: tensor.float() for name, tensor in low.items()})
    assert tower_sha256(low) != tower_sha256(weights)


def test_names_and_shapes_count():
    row = torch.arange(6.0)
    identities = {
        tower_sha256({"a": row}),
        tower_sha256({"b": row}),
        tower_sha256({"a": row.reshape(2, 3)}),
        tower_sha256({"a": row.reshape(3, 2)}),
        tower_sha256({"a": row[:3], "b": row[3:]}),
        tower_sha256({}),
    }
    assert len(identities) == 6


def test_memory_layout_does_not_count():
    matrix = torch.arange(6.0).reshape(2, 3)
    assert tower_sha256({"a": matrix.T.contiguous().T}) == tower_sha256({"a": matrix})
