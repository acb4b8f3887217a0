"""Extraction from images to a sealed store: exact, repeatable, and clear about what it refuses."""

import dataclasses
import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import ConfigError, OutputError, SourceError, StoreMismatch
from caev2.extract.planning.plan import plan
from caev2.extract.run import extract
from caev2.recipe import override
from caev2.store.images import open_images
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import draw_view, render_view
from caev2.store.reader import Store
from caev2.store.verify import verify_store
from tests.made_up import EXTRACT, SIZE_PX, PatchMeans, make_photographs


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture
def images(tmp_path):
    return make_photographs(tmp_path / "images", 20)


def test_every_row_is_what_the_teacher_says_of_that_view(images, tmp_path):
    result = extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert (result.rows_computed, result.failures) == (40, ())
    store, source, teacher = Store(result.store), open_images(images), PatchMeans()
    for number in range(20):
        image = decode_rgb(source.read(number))
        for view in range(2):
            drawn = draw_view(EXTRACT.views, source.keys[number], view, image)
            crop = torch.from_numpy(render_view(image, drawn, SIZE_PX).copy())[None]
            wanted = teacher.tokens(crop, ["projected"])["projected"][0].half().numpy()
            assert store.view(view, number) == drawn
            # a batch of one may round otherwise than a batch of four
            np.testing.assert_allclose(store.read_rows("projected", view, [number])[0], wanted, atol=1e-3)
    assert verify_store(store).problems == ()


def test_the_same_inputs_give_the_same_bytes_whatever_the_workers_and_the_folder(images, tmp_path):
    extract(images, tmp_path / "one", EXTRACT, teacher=PatchMeans())
    moved = images.rename(tmp_path / "moved")
    extract(moved, tmp_path / "other", dataclasses.replace(EXTRACT, workers=2), teacher=PatchMeans())
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")


def test_a_sealed_store_is_not_computed_again(images, tmp_path):
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    before = files_of(tmp_path / "store")
    calls = tmp_path / "calls"
    result = extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans(calls))
    assert (result.rows_computed, calls.exists()) == (0, False)
    assert files_of(tmp_path / "store") == before


def test_a_damaged_unit_record_is_computed_again_to_the_same_bytes(images, tmp_path):
    extract(images, tmp_path / "whole", EXTRACT, teacher=PatchMeans())
    store = tmp_path / "store"
    with pytest.raises(ZeroDivisionError):
        extract(images, store, EXTRACT, teacher=Dies(after=9))
    record = store / "units" / "000000.json"
    record.write_bytes(record.read_bytes()[:-20])
    extract(images, store, EXTRACT, teacher=PatchMeans())
    assert files_of(store) == files_of(tmp_path / "whole")


class Dies(PatchMeans):
    """Fails in its batch number `after`."""

    def __init__(self, after: int):
        super().__init__()
        self._left = after

    def tokens(self, images, taps):
        self._left -= 1
        return super().tokens(images, taps) if self._left else 1 / 0


def test_undecodable_images_keep_their_rows_and_reasons(images, tmp_path):
    (images / "class-0" / "000.png").write_bytes(b"")
    (images / "class-1" / "001.png").write_bytes(b"this is text")
    whole = (images / "class-0" / "002.png").read_bytes()
    (images / "class-0" / "002.png").write_bytes(whole[: len(whole) // 2])
    result = extract(images, tmp_path / "store", dataclasses.replace(EXTRACT, max_failed=0.2), teacher=PatchMeans())
    reasons = dict(result.failures)
    assert reasons["class-0/000.png"] == "the file is empty"
    assert reasons["class-1/001.png"] == "no known image format"
    assert reasons["class-0/002.png"].startswith("damaged")
    store = Store(tmp_path / "store")
    assert len(store) == 20
    assert len(store.valid_images) == 17
    assert verify_store(store).problems == ()


def test_too_many_undecodable_images_stop_the_run_and_name_them(images, tmp_path):
    for number in (0, 2):
        (images / "class-0" / f"00{number}.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"2 of 20 images .* class-0/000.png: the file is empty"):
        extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    # what was finished is kept: with a higher limit the same command ends
    extract(images, tmp_path / "store", dataclasses.replace(EXTRACT, max_failed=0.5), teacher=PatchMeans())


def test_latents_that_are_not_finite_make_the_row_invalid(images, tmp_path):
    class Infinite(PatchMeans):
        def tokens(self, images, taps):
            tokens = super().tokens(images, taps)
            tokens["projected"][0, 0, 0] = 1e6  # beyond float16
            return tokens

    result = extract(images, tmp_path / "store", dataclasses.replace(EXTRACT, max_failed=1.0), teacher=Infinite())
    assert len(result.failures) == 10  # the first view of each batch of four: every other image
    assert {reason for _, reason in result.failures} == {"the teacher's latents are not finite in float16"}
    assert verify_store(Store(result.store)).problems == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("views.seed=1", "views.seed is 0, this command asks for 1"),
        ("view_count=3", "views is 2, this command asks for 3"),
        ("block_images=4", "block_images is 8, this command asks for 4"),
    ],
)
def test_another_spec_at_the_same_path_is_refused(images, tmp_path, change, message):
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    before = files_of(tmp_path / "store")
    with pytest.raises(StoreMismatch, match=message):
        extract(images, tmp_path / "store", override(EXTRACT, [change]), teacher=PatchMeans())
    assert files_of(tmp_path / "store") == before


def test_another_teacher_at_the_same_path_is_refused(images, tmp_path):
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    other = PatchMeans()
    other.description = dataclasses.replace(other.description, sha256="1" * 64)
    with pytest.raises(StoreMismatch, match=r"targets.projected.teacher.sha256 is '0+', this command asks for '1+'"):
        extract(images, tmp_path / "store", EXTRACT, teacher=other)


def test_other_images_at_the_same_path_are_refused(images, tmp_path):
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    (images / "class-0" / "000.png").rename(images / "class-0" / "zzz.png")
    with pytest.raises(StoreMismatch, match="keys and labels of the images"):
        extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())


@pytest.mark.parametrize(
    ("has", "instead"), [({"post_norm": 6, "block:1": 6}, "post_norm"), ({"block:9": 6, "block:10": 6}, "block:10")]
)
def test_a_teacher_without_a_projection_is_refused_with_what_it_has(images, tmp_path, has, instead):
    teacher = PatchMeans()
    teacher.description = dataclasses.replace(teacher.description, widths=has)
    with pytest.raises(
        ConfigError, match=re.escape(f"no tap 'projected'. Take what it has: --set 'taps=[\"{instead}\"]'")
    ):
        extract(images, tmp_path / "store", EXTRACT, teacher=teacher)
    assert not (tmp_path / "store").exists()


def test_a_folder_of_other_things_is_not_written_into(images, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"holds something else than a store \('thesis.tex'\)"):
        extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert files_of(tmp_path / "store") == {"thesis.tex": b"mine"}


def test_a_store_that_cannot_fit_is_refused_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr("caev2.extract.planning.plan.free_bytes", lambda place: 1000)
    with pytest.raises(OutputError, match=r"would take .* kB, and 1.0 kB are free"):
        extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "There is no image in"),
        (lambda path: path.write_text("x"), "is a file. Give the folder"),
    ],
    ids=["missing", "empty", "file"],
)
def test_images_that_are_not_there_are_refused(tmp_path, make, message):
    make(tmp_path / "images")
    with pytest.raises(SourceError, match=message):
        extract(tmp_path / "images", tmp_path / "store", EXTRACT, teacher=PatchMeans())


def test_the_plan_counts_what_the_store_then_holds(images, tmp_path):
    planned = plan(open_images(images), tmp_path / "store", EXTRACT, PatchMeans())
    assert (planned.images, planned.views, planned.rows) == (20, 2, 40)
    extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    shards = sum(
        path.stat().st_size for path in (tmp_path / "store/targets/projected/codes/c").rglob("*") if path.is_file()
    )
    target = 17 * 6 * 2
    assert shards == 40 * (target + 4) + 6 * (8 * 16 + 4)  # rows with checksums, six indices of eight chunks


def save(image, path, **options):
    path.parent.mkdir(exist_ok=True)
    image.save(path, **options)


def test_odd_images_reach_the_teacher_as_the_documentation_says(tmp_path):
    folder = tmp_path / "images"
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    save(colours.convert("CMYK"), folder / "cmyk.jpg")
    save(colours.quantize(16), folder / "palette.png")
    save(colours.convert("RGBA"), folder / "alpha.png")
    save(Image.fromarray(deep), folder / "deep.png")
    save(colours, folder / "turned.jpg", exif=turned)
    save(Image.new("RGB", (1, 1), (9, 9, 9)), folder / "dot.png")
    save(Image.new("L", (20, 30), 7), folder / "grey.png")
    result = extract(folder, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert result.failures == ()
    source = open_images(folder)
    decoded = {key: decode_rgb(source.read(number)) for number, key in enumerate(source.keys)}
    assert decoded["turned.jpg"].size == (20, 30)
    assert decode_rgb(source.read(source.keys.index("turned.jpg")), "ignore").size == (30, 20)
    assert np.array_equal(np.asarray(decoded["deep.png"])[..., 0], deep >> 8)
    assert np.array_equal(np.asarray(decoded["alpha.png"]), np.asarray(colours))
    assert (np.asarray(decoded["grey.png"]) == 7).all()


def test_a_file_that_cannot_be_read_for_a_while_stops_the_run_and_is_no_undecodable_image(
    images, tmp_path, monkeypatch
):
    extract(images, tmp_path / "whole", EXTRACT, teacher=PatchMeans())
    sources = open_images(images)
    away = images / sources.paths[11]
    read = Path.read_bytes

    def read_or_fail(path):
        if path == away:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read_or_fail)
        with pytest.raises(SourceError, match=f"cannot read {away}: Input/output error"):
            extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    result = extract(images, tmp_path / "store", EXTRACT, teacher=PatchMeans())
    assert result.failures == ()
    assert 0 < result.rows_computed < 40
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
