"""Shares: every image is somebody's, and nobody else's, in batches that do not depend on how many share them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from caev2.eval.shares import BY_ITSELF, _join, deal, decoding_workers, in_shares
from caev2.pretrain.supply.loading import cores
from caev2.pretrain.together.ranks import Company, Ranks
from caev2.progress import Silent


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5))
def test_every_image_belongs_to_one_rank_and_comes_back_in_its_place(images, batch, count):
    part = list(range(100, 100 + images))
    shares = [deal(part, batch, Company(Ranks(index, count))) for index in range(count)]
    assert sorted(image for share in shares for each in share for image in each) == part
    pieces = [[{"number": torch.tensor(each)} for each in share] for share in shares]
    assert _join(pieces)["number"].tolist() == part


@given(st.integers(1, 60), st.integers(1, 9), st.integers(2, 5))
def test_batches_are_the_same_however_many_share_them(images, batch, count):
    alone = deal(range(images), batch, BY_ITSELF)
    shared = [deal(range(images), batch, Company(Ranks(index, count))) for index in range(count)]
    assert sorted(each.start for share in shared for each in share) == [each.start for each in alone]
    assert {(each.start, each.stop) for share in shared for each in share} == {
        (each.start, each.stop) for each in alone
    }


def test_parts_are_computed_one_after_another_and_only_as_they_are_asked_for():
    asked = []

    def compute(batches):
        for batch in batches:
            asked.append(list(batch))
            yield {"double": 2 * torch.tensor(list(batch))}

    parts = in_shares(compute, [range(5), range(5, 8)], batch=2, company=BY_ITSELF, progress=Silent())
    assert next(parts)["double"].tolist() == [0, 2, 4, 6, 8]
    assert asked == [[0, 1], [2, 3], [4]]
    assert next(parts)["double"].tolist() == [10, 12, 14]
    assert next(parts, None) is None


def test_ranks_of_a_machine_share_its_cores_where_gpus_compute():
    assert decoding_workers("cpu", BY_ITSELF) == 1
    assert decoding_workers("cuda:1", BY_ITSELF) == cores()
    assert decoding_workers("cuda", Company(Ranks(0, 64, 0, 64))) == max(1, cores() // 64)
