"""Stores of every codec: calibrated once, judged on other images, decoded to the codec's own latents."""

import dataclasses
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from caev2.errors import ConfigError, StoreCorrupt, StoreError, StoreIncomplete, StoreMismatch
from caev2.extract.planning.plan import plan
from caev2.extract.run import extract
from caev2.store.codecs.calibration import choose_images
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import decode
from caev2.store.codecs.quality import QualityFloor
from caev2.store.images import open_images
from caev2.store.learned import read_quality
from caev2.store.manifest import read_manifest
from caev2.store.reader import Store
from caev2.store.verify import verify_store
from tests.made_up import EXTRACT, PatchMeans, make_photographs

LEARNING = ("int8", "lloyd4", "klt:3", "pq:3")
NO_FLOOR = QualityFloor(relative_error=10.0, centred_cosine_p1=-1.0)


def recipe(codec: str, floor: QualityFloor = NO_FLOOR):
    return dataclasses.replace(EXTRACT, codec=codec, floor=floor)


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("source") / "images", 20)


@pytest.fixture(scope="module")
def exact(images, tmp_path_factory):
    """The float16 rows that all codecs are made of: [view, image, token, width]."""
    store = tmp_path_factory.mktemp("exact") / "store"
    extract(images, store, recipe("float16"), teacher=PatchMeans())
    return np.stack([Store(store).read_rows("projected", view, range(20)) for view in range(2)])


@pytest.mark.parametrize("codec", LEARNING)
def test_a_store_gives_what_the_codec_makes_of_the_float16_rows(codec, images, exact, tmp_path):
    calls = tmp_path / "calls"
    extract(images, tmp_path / "store", recipe(codec), teacher=PatchMeans(calls))
    store, coder = Store(tmp_path / "store"), codec_named(codec)
    chosen = choose_images(open_images(images).keys, EXTRACT.views.seed)
    assert sum(map(int, calls.read_text().split())) == 40 + 20  # of the first view, once more than needed
    tables = coder.fit(exact[0, list(chosen.calibrate)])
    for name, table in tables.items():
        np.testing.assert_array_equal(store.tables("projected")[name], table)
    for view in range(2):
        encoded = coder.encode(exact[view], tables)
        assert np.array_equal(store.read_stored("projected", view, range(20)), encoded.stored())
        assert np.array_equal(store.read_rows("projected", view, range(20)), decode(coder, encoded, tables))
    assert verify_store(store).problems == ()
    quality = read_quality(store.path, "projected")
    held_out = exact[0, list(chosen.held_out)].astype(np.float64)
    error = np.square(held_out - decode(coder, coder.encode(held_out.astype(np.float16), tables), tables))
    variation = np.square(held_out[:, 1:] - held_out[:, 1:].mean((0, 1)))
    assert quality.patch_tokens.relative_error == pytest.approx(error[:, 1:].sum() / variation.sum(), rel=1e-6)


def test_zarr_reads_the_stored_bytes_and_the_tables(images, tmp_path):
    zarr = pytest.importorskip("zarr")
    extract(images, tmp_path / "store", recipe("lloyd4"), teacher=PatchMeans())
    store, group = Store(tmp_path / "store"), zarr.open_group(tmp_path / "store", mode="r")
    assert np.array_equal(group["targets/projected/codes"][1, 3:9], store.read_stored("projected", 1, range(3, 9)))
    for name, table in store.tables("projected").items():
        assert np.array_equal(group[f"targets/projected/codec/{name}"][...], table)


def test_interrupted_anywhere_it_ends_in_the_same_bytes(images, tmp_path):
    class Dies(PatchMeans):
        def __init__(self, after):
            super().__init__()
            self.left = after

        def tokens(self, views, taps):
            self.left -= 1
            if self.left < 0:
                raise ZeroDivisionError
            return super().tokens(views, taps)

    extract(images, tmp_path / "whole", recipe("lloyd4"), teacher=PatchMeans())
    for after in (0, 3, 7, 14):  # five batches calibrate, ten extract
        store = tmp_path / str(after)
        with pytest.raises(ZeroDivisionError):
            extract(images, store, recipe("lloyd4"), teacher=Dies(after))
        if after < 5:
            with pytest.raises(StoreIncomplete, match="not calibrated yet"):
                Store(store, allow_unsealed=True).read_rows("projected", 0, [0])
        extract(images, store, recipe("lloyd4"), teacher=PatchMeans())
        assert files_of(store) == files_of(tmp_path / "whole")


def test_several_that_calibrate_at_one_moment_use_the_tables_of_one(images, tmp_path):
    extract(images, tmp_path / "whole", recipe("int8"), teacher=PatchMeans())
    context = multiprocessing.get_context("spawn")
    arguments = (images, tmp_path / "store", recipe("int8"))
    writers = [context.Process(target=extract, args=arguments, kwargs={"teacher": PatchMeans()}) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_a_codec_below_its_floor_is_refused_and_nothing_is_left(images, tmp_path):
    with pytest.raises(StoreError, match=r"lloyd4 on 'projected' is not faithful enough .*relative_error of .* above"):
        extract(images, tmp_path / "store", recipe("lloyd4", QualityFloor(relative_error=1e-9)), teacher=PatchMeans())
    assert files_of(tmp_path / "store") == {}
    extract(images, tmp_path / "store", recipe("float16"), teacher=PatchMeans())


def test_tables_of_another_store_of_the_same_teacher_are_used(images, tmp_path):
    more = make_photographs(tmp_path / "more", 30)
    extract(images, tmp_path / "first", recipe("int8"), teacher=PatchMeans())
    extract(more, tmp_path / "store", recipe("int8"), teacher=PatchMeans(), calibration=tmp_path / "first")
    spec, theirs = (read_manifest(tmp_path / name).spec for name in ("store", "first"))
    assert spec.targets["projected"].tables == theirs.targets["projected"].tables
    assert spec.fingerprint() == theirs.fingerprint()
    quality = [read_quality(tmp_path / name, "projected") for name in ("store", "first")]
    assert quality[0] != quality[1]  # measured on images of its own


def test_tables_that_do_not_fit_are_refused(images, tmp_path):
    extract(images, tmp_path / "int8", recipe("int8"), teacher=PatchMeans())
    with pytest.raises(StoreMismatch, match="has no tables of lloyd4 for tap 'projected'"):
        extract(images, tmp_path / "a", recipe("lloyd4"), teacher=PatchMeans(), calibration=tmp_path / "int8")
    other = PatchMeans()
    other.description = dataclasses.replace(other.description, sha256="1" * 64)
    with pytest.raises(StoreMismatch, match="Give --calibration a store of the same teacher"):
        extract(images, tmp_path / "b", recipe("int8"), teacher=other, calibration=tmp_path / "int8")
    more = make_photographs(tmp_path / "more", 30)
    extract(more, tmp_path / "other", recipe("int8"), teacher=PatchMeans())
    with pytest.raises(StoreMismatch, match="has tables of its own already"):
        extract(images, tmp_path / "int8", recipe("int8"), teacher=PatchMeans(), calibration=tmp_path / "other")
    assert not files_of(tmp_path).keys() & {"a/manifest.json", "b/manifest.json"}


@pytest.mark.parametrize("codec", ["int8", "pq:3"])
def test_changed_tables_are_found_by_reading_and_by_verify(codec, images, tmp_path):
    extract(images, tmp_path / "store", recipe(codec), teacher=PatchMeans())
    folder = tmp_path / "store/targets/projected/codec"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], bytes([whole[0] ^ 1]) + whole[1:]):
            path.write_bytes(damaged)
            report = verify_store(Store(tmp_path / "store"))
            assert report.problems, path
            if path.parent != folder:
                with pytest.raises(StoreCorrupt, match="targets/projected/codec"):
                    Store(tmp_path / "store").read_rows("projected", 0, [0])
        path.write_bytes(whole)
    assert verify_store(Store(tmp_path / "store")).problems == ()


def test_the_codec_is_chosen_by_the_number_of_images_and_said(images, tmp_path):
    automatic = recipe("auto")
    assert [automatic.codec_for(count) for count in (20, 2559, 2560)] == ["float16", "float16", "lloyd4"]
    planned = plan(open_images(images), tmp_path / "store", automatic, PatchMeans())
    assert (planned.codec, planned.calibration_rows) == ("float16", 0)
    planned = plan(open_images(images), tmp_path / "store", recipe("int8"), PatchMeans())
    assert (planned.codec, planned.calibration_rows) == ("int8", 20)
    with pytest.raises(ConfigError, match="no codec called 'loyd4'"):
        recipe("loyd4")


def test_another_codec_is_another_store(images, tmp_path):
    extract(images, tmp_path / "store", recipe("int8"), teacher=PatchMeans())
    before = files_of(tmp_path / "store")
    with pytest.raises(StoreMismatch, match=r"its targets.projected.codec is 'int8', this command asks for 'float16'"):
        extract(images, tmp_path / "store", recipe("float16"), teacher=PatchMeans())
    assert files_of(tmp_path / "store") == before
