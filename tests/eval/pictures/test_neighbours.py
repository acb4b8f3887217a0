"""Nearest images, against scikit-learn's."""

import numpy as np
import torch

from caev2.eval.features import Subject
from caev2.eval.pictures.neighbours import class_tokens, find_neighbours, rank
from caev2.progress import Silent
from caev2.store.images import open_images
from tests.made_up import make_photographs


def test_the_order_is_scikit_learns():
    from sklearn.neighbors import NearestNeighbors

    random = np.random.default_rng(0)
    features, queries = random.normal(size=(40, 8)), random.normal(size=(5, 8))
    order, cosines = rank(torch.from_numpy(queries).float(), torch.from_numpy(features).float())
    theirs = NearestNeighbors(n_neighbors=40, metric="cosine", algorithm="brute").fit(features)
    distances, wanted = theirs.kneighbors(queries)
    assert np.array_equal(order.numpy(), wanted)
    np.testing.assert_allclose(1 - cosines.numpy(), distances, atol=1e-5)


def test_equal_images_come_in_their_order():
    features = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    order, _ = rank(torch.tensor([[0.0, 5.0]]), features)
    assert order.tolist() == [[0, 2, 3, 1]]


def mean_colour(crops):
    return {"class": crops.float().mean((1, 2))}


def test_the_image_itself_is_passed_over(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 8))
    subject = Subject(name="means", size_px=32, pool=mean_colour)
    features = class_tokens(
        subject, source, resize_px=36, orientation="exif", device="cpu", workers=0, progress=Silent()
    )
    asked = tmp_path / "images" / source.keys[3]
    (found,) = find_neighbours([asked], features[3:4], source, features, 3)
    assert len(found) == 3
    assert source.keys[3] not in {one.key for one in found}
    assert [one.cosine for one in found] == sorted((one.cosine for one in found), reverse=True)
    (all_of_them,) = find_neighbours([asked], features[3:4], source, features, 99)
    assert len(all_of_them) == 7
