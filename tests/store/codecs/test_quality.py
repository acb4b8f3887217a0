import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import StoreCorrupt
from caev2.store.codecs.quality import (
    ANY_QUALITY,
    FLOORS,
    Figures,
    Quality,
    QualityFloor,
    QualityMeter,
    mean_latents,
    quality_of_json,
)

metrics = pytest.importorskip("sklearn.metrics.pairwise")


def rows_and_decoded(seed=0, rows=50, tokens=4, width=6, noise=0.3):
    random = np.random.default_rng(seed)
    latents = random.standard_normal((rows, tokens, width)) + random.standard_normal((1, tokens, width)) * 3
    return latents.astype(np.float32), (latents + noise * random.standard_normal(latents.shape)).astype(np.float32)


def quality_of(latents, decoded):
    meter = QualityMeter(mean_latents([latents]))
    meter.add(latents, decoded)
    return meter.quality()


def test_figures_agree_with_scikit_learn_and_the_formula():
    latents, decoded = rows_and_decoded()
    quality = quality_of(latents, decoded)
    for figures, tokens in ((quality.class_token, slice(0, 1)), (quality.patch_tokens, slice(1, None))):
        x, y = (rows[:, tokens].reshape(-1, 6).astype(float) for rows in (latents, decoded))
        mean = x.mean(0)
        plain = 1 - metrics.paired_cosine_distances(x, y)
        centred = 1 - metrics.paired_cosine_distances(x - mean, y - mean)
        assert figures.tokens == len(x)
        assert figures.relative_error == pytest.approx(((x - y) ** 2).sum() / ((x - mean) ** 2).sum())
        assert figures.cosine_mean == pytest.approx(plain.mean())
        assert figures.centred_cosine_mean == pytest.approx(centred.mean())
        assert figures.cosine_p1 == pytest.approx(np.sort(plain)[(len(x) - 1) // 100])
        assert figures.centred_cosine_p1 == pytest.approx(np.sort(centred)[(len(x) - 1) // 100])


@given(cut=st.integers(0, 50))
def test_the_cut_into_batches_does_not_matter(cut):
    latents, decoded = rows_and_decoded()
    meter = QualityMeter(mean_latents([latents[:cut], latents[cut:]]))
    meter.add(latents[:cut], decoded[:cut])
    meter.add(latents[cut:], decoded[cut:])
    one, other = (dataclasses.asdict(found.patch_tokens) for found in (quality_of(latents, decoded), meter.quality()))
    assert one == pytest.approx(other, rel=1e-12)


def test_a_large_shared_mean_flatters_the_plain_cosine_only():
    latents, decoded = rows_and_decoded()
    near, far = quality_of(latents, decoded), quality_of(latents + 100, decoded + 100)
    assert far.patch_tokens.cosine_p1 > 0.9999 > near.patch_tokens.cosine_p1
    assert far.patch_tokens.centred_cosine_p1 == pytest.approx(near.patch_tokens.centred_cosine_p1, abs=1e-4)


def test_one_bad_class_token_is_not_hidden_by_good_patches():
    latents, decoded = rows_and_decoded(noise=0)
    decoded[:, 0] = -latents[:, 0]
    quality = quality_of(latents, decoded)
    assert quality.patch_tokens.relative_error == 0
    assert quality.class_token.cosine_mean == pytest.approx(-1)


def test_zero_vectors_have_cosine_one_with_zero_and_none_with_others():
    latents = np.zeros((2, 2, 3), np.float32)
    decoded = latents.copy()
    decoded[:, 1] = 1
    quality = quality_of(latents, decoded)
    assert (quality.class_token.cosine_mean, quality.class_token.relative_error) == (1, 0)
    assert (quality.patch_tokens.cosine_mean, quality.patch_tokens.relative_error) == (0, None)
    assert FLOORS["lloyd4"].shortfalls(quality)[0].value is None


def test_nothing_measured_is_no_quality_and_a_lone_class_token_has_no_patches():
    latents, decoded = rows_and_decoded(tokens=1)
    assert quality_of(latents, decoded).patch_tokens is None
    assert QualityMeter(np.zeros((2, 3))).quality() is None


def test_json_keeps_every_bit_and_holds_plain_numbers():
    quality = quality_of(*rows_and_decoded())
    assert quality_of_json(quality.to_json()) == quality
    assert json.loads(quality.to_json())["class_token"]["tokens"] == 50


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"class_token": {}, "patch_tokens": null}', '{"class_token": 1}'])
def test_a_damaged_record_is_refused(text):
    with pytest.raises(StoreCorrupt, match="damaged"):
        quality_of_json(text)


def figures(**changes):
    good = Figures(
        tokens=9,
        relative_error=0.009,
        cosine_mean=0.99,
        cosine_p1=0.98,
        centred_cosine_mean=0.99,
        centred_cosine_p1=0.986,
    )
    return dataclasses.replace(good, **changes)


def test_a_floor_names_each_figure_that_falls_short_with_value_and_limit():
    quality = Quality(class_token=figures(centred_cosine_p1=0.97), patch_tokens=figures(relative_error=0.02))
    assert [str(found) for found in FLOORS["lloyd4"].shortfalls(quality)] == [
        "centred_cosine_p1 of class_token is 0.97, below the limit of 0.985",
        "relative_error of patch_tokens is 0.02, above the limit of 0.0105",
    ]


def test_a_figure_at_its_limit_is_good_enough_and_no_limit_asks_nothing():
    quality = Quality(class_token=figures(relative_error=0.0105, centred_cosine_p1=0.985), patch_tokens=None)
    assert FLOORS["lloyd4"].shortfalls(quality) == ()
    bad = Quality(class_token=figures(relative_error=1e9, cosine_p1=-1.0), patch_tokens=None)
    assert QualityFloor().shortfalls(bad) == ()


@pytest.mark.parametrize("codec", [*FLOORS, "klt"])
def test_without_a_floor_nothing_falls_short_not_even_what_is_undefined(codec):
    same = np.ones((4, 3, 6), np.float32)
    quality = quality_of(same, same + 1)
    assert quality.class_token.relative_error is None
    assert QualityFloor(relative_error=1e9).shortfalls(quality)
    assert ANY_QUALITY.over(FLOORS.get(codec, QualityFloor())).shortfalls(quality) == ()
