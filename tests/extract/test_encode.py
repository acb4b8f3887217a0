"""Encoding on the device says what the reference says, but for a code here and there that is the neighbouring one."""

import numpy as np
import pytest
import torch

from caev2.extract.encode import encoder_for
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import decode, encoded_of

TOKENS = 17


def rows_of(width: int) -> np.ndarray:
    """Latents with a mean, channels of several sizes, a zero vector, a tiny one and a huge one."""
    random = np.random.default_rng(width)
    rows = random.standard_normal((40, TOKENS, width)) * random.uniform(0.1, 3, width) + random.standard_normal(width)
    rows[3, 2], rows[4, 0] = 0, 0
    rows[5, 1] *= 1e-8
    rows[6, 1] *= 1000
    return rows.astype(np.float16)


@pytest.mark.parametrize("codec", ["float16", "int8", "lloyd4"])
@pytest.mark.parametrize("width", [6, 7, 48, 64])
def test_rows_are_those_of_the_reference(codec, width):
    reference, rows = codec_named(codec), rows_of(width)
    tables = reference.fit(rows)
    encode = encoder_for(codec, tables, TOKENS, torch.device("cpu"))
    assert encode is not None
    found, wanted = encode(torch.from_numpy(rows)).numpy(), reference.encode(rows, tables).stored()
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert (found != wanted).mean() < 2e-4
    mine, theirs = (decode(reference, encoded_of(stored), tables) for stored in (found, wanted))
    energy = np.square(theirs.astype(np.float64)).sum(-1) + 1e-9
    assert (np.square(mine.astype(np.float64) - theirs).sum(-1) / energy).max() < 0.05  # at most a step of a channel


@pytest.mark.parametrize("codec", ["klt", "pq"])
def test_codecs_for_studies_are_encoded_by_the_reference(codec):
    assert encoder_for(codec, {}, TOKENS, torch.device("cpu")) is None
