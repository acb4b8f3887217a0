"""Teachers of several sizes over the same stored views, from the images and from crops that a store keeps."""

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caev2.errors import ConfigError, PixelDrift, SourceError, StoreCorrupt, StoreIncomplete, StoreMismatch
from caev2.extract.engines.devices import ManyDevices
from caev2.extract.extend import extend
from caev2.extract.parts import Part
from caev2.extract.planning.estimate import estimate
from caev2.extract.planning.sample import draw_sample
from caev2.extract.recheck import recheck
from caev2.extract.run import extract
from caev2.extract.shown import over_kept_views, sees_boxes
from caev2.pretrain.run import pretrain
from caev2.progress import Silent
from caev2.store.codecs.quality import QualityFloor
from caev2.store.images import open_images
from caev2.store.layout import crop_path
from caev2.store.pixels import kept as kept_module
from caev2.store.pixels import views as views_module
from caev2.store.pixels.crops import StoredCrops
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.kept import open_kept_views
from caev2.store.pixels.replay import ViewReplay, open_crops
from caev2.store.reader import Store
from caev2.store.rewriting.convert import convert
from caev2.store.rewriting.graft import graft
from caev2.store.verify import verify_images, verify_store
from tests.made_up import EXTRACT, SIZE_PX, WIDTH, PatchMeans, make_photographs
from tests.made_up_pretrain import PRETRAIN
from tests.store.pixels.test_views import torchvision_pixels

OTHER_PX, OTHER_PATCH_PX = 48, 12  # the same 4×4 grid as 32 pixels in patches of 8
NO_FLOOR = QualityFloor(relative_error=10.0, centred_cosine_p1=-1.0)
DINO = dataclasses.replace(EXTRACT, target_prefix="dino-")
TARGET = "dino-projected"


class LargerMeans(PatchMeans):
    """Another teacher, of another size."""

    def __init__(self, image_px=OTHER_PX, patch_px=OTHER_PATCH_PX):
        super().__init__()
        self.description = dataclasses.replace(
            self.description, name="larger-means", sha256="2" * 64, image_px=image_px, patch_px=patch_px,
            tokens=1 + (image_px // patch_px) ** 2,
        )  # fmt: skip

    def tokens(self, images, taps):
        px = self.description.patch_px
        assert images.shape[1:] == (self.description.image_px, self.description.image_px, 3)
        patches = images.float().unfold(1, px, px).unfold(2, px, px).mean((4, 5))
        latents = (0.5 - patches.flatten(1, 2) / 255) @ self._map
        return {tap: torch.cat([latents.mean(1, keepdim=True), latents], 1) for tap in taps}


class OtherMeans(LargerMeans):
    """Another teacher, of the views' size."""

    def __init__(self):
        super().__init__(SIZE_PX, 8)


def load(recorded):
    if recorded["name"] == "patch-means":
        return PatchMeans()
    return LargerMeans(recorded["image_px"], recorded["patch_px"])


class Heard(Silent):
    """Remembers what it was told."""

    def __init__(self):
        self.lines: list[str] = []

    def say(self, message):
        self.lines.append(message)

    def warn(self, message):
        self.lines.append("warning: " + message)


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def from_crops(store: Path, place: Path, teacher, recipe=DINO, **more):
    kept = open_kept_views(store)
    return extract(kept, place, over_kept_views(recipe, kept), teacher=teacher, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `images`, one of which is none, and stores with and without crops."""
    folder = tmp_path_factory.mktemp("made")
    images = make_photographs(folder / "images", 20)
    (images / "class-0" / "004.png").write_bytes(b"no image")
    for crops in (None, "raw", "jpeg"):
        extract(images, folder / str(crops), dataclasses.replace(EXTRACT, crops=crops), teacher=PatchMeans())
    return folder


def said_of(teacher, crop: np.ndarray) -> np.ndarray:
    return teacher.tokens(torch.from_numpy(crop.copy())[None], ["projected"])["projected"][0].numpy()


@pytest.mark.parametrize("crops", [None, "raw", "jpeg"])
def test_a_teacher_of_another_size_sees_the_box_at_its_own(made, tmp_path, crops):
    heard = Heard()
    recipe = dataclasses.replace(DINO, crops=crops)
    extract(made / "images", tmp_path / "part", recipe, teacher=LargerMeans(), progress=heard)
    assert (
        "extract: the teacher sees crops of 48 pixels, the student 32; a student of 8-pixel patches has its 4x4 grid"
        in heard.lines
    )
    store, source = Store(tmp_path / "part"), open_images(made / "images")
    assert store.manifest.spec.targets[TARGET].teacher["image_px"] == OTHER_PX
    for image in map(int, store.valid_images):
        pixels = decode_rgb(source.read(image))
        for view in range(2):
            box = torchvision_pixels(pixels, store.view(view, image), OTHER_PX)
            np.testing.assert_allclose(
                store.read_rows(TARGET, view, [image])[0], said_of(LargerMeans(), box), atol=1e-3
            )
    assert verify_images(store, ViewReplay(store, source)) == ()  # the views are the student's


@pytest.mark.parametrize("crops", [None, "raw", "jpeg"])
def test_views_are_the_same_whatever_the_teachers_size(made, tmp_path, crops):
    """The part has the very files that the store has, its own target's aside, and joins it; a student learns from each."""
    extract(made / "images", tmp_path / "part", dataclasses.replace(DINO, crops=crops), teacher=LargerMeans())
    before, part = files_of(made / str(crops)), files_of(tmp_path / "part")
    shared = [path for path in part if path.startswith(("views/", "crops/"))]
    assert len(shared) > 20
    assert all(part[path] == before[path] for path in shared)
    store = shutil.copytree(made / str(crops), tmp_path / "store")
    assert graft(store, tmp_path / "part").targets == (TARGET, "projected")
    assert verify_store(Store(store)).problems == ()
    for target in (TARGET, "projected"):
        recipe = dataclasses.replace(PRETRAIN, target=target, epochs=1)
        assert pretrain(store, tmp_path / f"run-{target}", recipe, images=made / "images").steps > 0


def test_teachers_of_the_views_size_are_rendered_for_once(made, monkeypatch):
    """Nothing is resized twice where sizes agree, and nothing is said."""
    sizes = []
    resize = views_module._resize
    monkeypatch.setattr(views_module, "_resize", lambda box, px, how: sizes.append(px) or resize(box, px, how))
    draw_sample(open_images(made / "images"), EXTRACT, count=3, teacher_px=SIZE_PX)
    assert set(sizes) == {SIZE_PX}
    assert len(sizes) == 6
    sizes.clear()
    draw_sample(open_images(made / "images"), EXTRACT, count=3, teacher_px=OTHER_PX)
    assert sizes == [SIZE_PX, OTHER_PX] * 6


@pytest.mark.parametrize("crops", ["raw", "jpeg"])
@pytest.mark.parametrize("layout", ["zarr", "webdataset"])
@pytest.mark.parametrize(("workers", "codec"), [(0, "float16"), (2, "int8")])
def test_kept_crops_give_the_bytes_that_the_images_give(made, tmp_path, crops, layout, workers, codec):
    """Codes and the codec's tables included, whoever decodes the crops."""
    store = made / crops
    if layout == "webdataset":
        store = tmp_path / "tars"
        convert(made / crops, store, layout="webdataset")
    wanted = dataclasses.replace(DINO, crops=crops, codec=codec, floor=NO_FLOOR)
    extract(made / "images", tmp_path / "images", wanted, teacher=OtherMeans())
    from_crops(store, tmp_path / "crops", OtherMeans(), dataclasses.replace(wanted, crops=None, workers=workers))
    assert files_of(tmp_path / "crops") == files_of(tmp_path / "images")
    assert "from_crops" not in (tmp_path / "crops" / "manifest.json").read_text()


@pytest.mark.parametrize("crops", ["raw", "jpeg"])
def test_kept_crops_resized_are_recorded_and_join_their_store(made, tmp_path, crops):
    store = shutil.copytree(made / crops, tmp_path / "store")
    heard = Heard()
    from_crops(store, tmp_path / "part", LargerMeans(), progress=heard)
    assert any("sees the student's crops resized to 48 pixels" in line for line in heard.lines)
    graft(store, tmp_path / "part")
    opened = Store(store)
    assert opened.manifest.spec.targets[TARGET].from_crops
    assert not opened.manifest.spec.targets["projected"].from_crops
    assert verify_store(opened).problems == ()
    for image in map(int, opened.valid_images):
        for view in range(2):
            small = Image.fromarray(StoredCrops(opened).crop(view, image))
            seen = np.asarray(small.resize((OTHER_PX, OTHER_PX), Image.Resampling.BICUBIC))
            np.testing.assert_allclose(
                opened.read_rows(TARGET, view, [image])[0], said_of(LargerMeans(), seen), atol=1e-3
            )
    assert pretrain(store, tmp_path / "run", dataclasses.replace(PRETRAIN, target=TARGET, epochs=1)).steps > 0
    boxes = tmp_path / "boxes"
    extract(made / "images", boxes, dataclasses.replace(DINO, crops=crops), teacher=LargerMeans())
    assert Store(boxes).manifest.spec.fingerprint() != Store(tmp_path / "part").manifest.spec.fingerprint()
    with pytest.raises(StoreMismatch, match=r"from_crops is None, this command asks for True"):
        from_crops(made / crops, boxes, LargerMeans())


def test_crops_resized_can_be_made_of_the_images_as_well(made, tmp_path):
    """So that a store with such a target can be extended."""
    from_crops(made / "jpeg", tmp_path / "crops", LargerMeans())
    recipe = dataclasses.replace(DINO, crops="jpeg", from_crops=True)
    extract(made / "images", tmp_path / "images", recipe, teacher=LargerMeans())
    assert files_of(tmp_path / "crops") == files_of(tmp_path / "images")


def test_engines_and_parts_give_the_same_bytes_of_kept_crops(made, tmp_path):
    from_crops(made / "jpeg", tmp_path / "one", LargerMeans())
    for number in (1, 2):
        from_crops(made / "jpeg", tmp_path / "two", LargerMeans(), part=Part(number, 2))
    kept = pickle.loads(pickle.dumps(open_kept_views(made / "jpeg")))
    recipe = dataclasses.replace(over_kept_views(DINO, kept), teacher="demo", codec="float16")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    for name, engine in (("here", None), ("there", ManyDevices(("cpu", "cpu")))):
        extract(kept, tmp_path / name, recipe, engine=engine)  # the demo's teacher, of 64 pixels
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_a_store_of_several_sizes_grows_as_if_all_had_been_extracted_at_once(made, tmp_path, codec):
    wanted = dataclasses.replace(EXTRACT, crops="jpeg", codec=codec, floor=NO_FLOOR)
    boxes = dataclasses.replace(wanted, target_prefix="box-")
    resized = dataclasses.replace(wanted, target_prefix="dino-", from_crops=True)

    def extract_all(store: Path, views: int) -> Path:
        for recipe, teacher, place in (
            (wanted, PatchMeans(), store),
            (boxes, LargerMeans(), store.with_name(f"{store.name}-boxes")),
            (resized, LargerMeans(), store.with_name(f"{store.name}-resized")),
        ):
            extract(made / "images", place, dataclasses.replace(recipe, view_count=views), teacher=teacher)
            if place != store:
                graft(store, place)
        return store

    store = extract_all(tmp_path / "store", 2)
    assert sees_boxes(Store(store).manifest.spec)
    grown = extend(store, open_images(made / "images"), 3, load=load, workers=0)
    assert grown.targets == ("box-projected", TARGET, "projected")
    one, other = Store(store), Store(extract_all(tmp_path / "whole", 3))
    assert verify_store(one).problems == ()
    assert one.manifest.spec == other.manifest.spec
    for target in grown.targets:
        for view in range(3):
            np.testing.assert_allclose(
                one.read_rows(target, view, one.valid_images),
                other.read_rows(target, view, one.valid_images),
                atol=2e-3,
            )


def test_each_teacher_is_run_again_on_what_it_saw(made, tmp_path):
    store = shutil.copytree(made / "jpeg", tmp_path / "store")
    from_crops(store, tmp_path / "part", LargerMeans())
    graft(store, tmp_path / "part")
    opened, source = Store(store), open_images(made / "images")
    assert not sees_boxes(opened.manifest.spec)
    for target, teacher in (("projected", PatchMeans()), (TARGET, LargerMeans())):
        for crops in (open_crops(opened, None), open_crops(opened, source, boxes=True)):
            again = recheck(opened, crops, target, teacher, 8)
            assert again.problems == ()
            assert again.patch_cosine_mean > 0.9999
    boxes = dataclasses.replace(DINO, crops="jpeg")
    extract(made / "images", tmp_path / "boxes", boxes, teacher=LargerMeans())
    opened = Store(tmp_path / "boxes")
    assert sees_boxes(opened.manifest.spec)
    assert recheck(opened, open_crops(opened, source, boxes=True), TARGET, LargerMeans(), 8).problems == ()
    with pytest.raises(SourceError, match=r"saw boxes at 48 pixels; there are crops of 32 only. Give --images"):
        recheck(opened, open_crops(opened, None), TARGET, LargerMeans(), 8)
    with pytest.raises(SourceError, match=r"a teacher saw their boxes at another size. Give --images"):
        open_crops(opened, None, boxes=True)


def test_a_grid_that_no_student_of_these_views_has_is_warned_of(made, tmp_path):
    heard = Heard()
    extract(made / "images", tmp_path / "part", DINO, teacher=LargerMeans(36, 12), progress=heard)
    warned = [line for line in heard.lines if line.startswith("warning: ")]
    assert len(warned) == 1
    assert "36 pixels into 3x3 patches, and 32 pixels cannot be cut into as many" in warned[0]
    assert "--set teacher_px=24 gives it 2x2, that of 16-pixel patches" in warned[0]
    store = shutil.copytree(made / "None", tmp_path / "store")
    graft(store, tmp_path / "part")
    with pytest.raises(
        StoreMismatch, match=r"has 9 patches in an image, the recipe's student 16. No student of 32 pix"
    ):
        pretrain(store, tmp_path / "run", dataclasses.replace(PRETRAIN, target=TARGET), images=made / "images")


def test_a_plan_of_both_is_the_store_that_is_then_made(made, tmp_path, monkeypatch):
    for name in ("_MEASURED_S", "_ENCODED_S", "_WRITTEN_S"):
        monkeypatch.setattr(f"caev2.extract.planning.measure.{name}", 0.1)
    kept, images = open_kept_views(made / "jpeg"), open_images(made / "images")
    for source, recipe, name in ((images, DINO, "boxes"), (kept, over_kept_views(DINO, kept), "crops")):
        heard = Heard()
        found = estimate(source, tmp_path / name, recipe, LargerMeans(), device="cpu", progress=heard)
        assert any("48 pixels, the student 32" in line for line in heard.lines)
        assert not (tmp_path / name).exists()
        extract(source, tmp_path / name, recipe, teacher=LargerMeans())
        made_bytes = sum(len(data) for data in files_of(tmp_path / name).values())
        assert found.plan.bytes == pytest.approx(made_bytes, rel=0.03)
        assert found.plan.files == len(files_of(tmp_path / name))


def test_stores_that_cannot_take_the_place_of_images_are_refused(made, tmp_path):
    with pytest.raises(StoreMismatch, match="keeps no crops, so nothing can be extracted from it"):
        open_kept_views(made / "None")
    with pytest.raises(StoreMismatch, match="There is no store"):
        open_kept_views(made / "images")
    store = shutil.copytree(made / "raw", tmp_path / "store")
    building = dataclasses.replace(Store(store).manifest, state="building", root_digest=None)
    (store / "manifest.json").write_bytes(building.to_bytes())
    with pytest.raises(StoreIncomplete, match="is not sealed"):
        open_kept_views(store)
    later = dataclasses.replace(EXTRACT, crops="raw", first_view=2)
    extract(made / "images", tmp_path / "later", later, teacher=PatchMeans())
    with pytest.raises(StoreMismatch, match="is a part that begins with view 2"):
        open_kept_views(tmp_path / "later")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view_count": 1}, "its view_count is 2, and 1 was asked for"),
        ({"crops": None}, "its crops is raw, and None was asked for"),
        ({"teacher_batch": 5}, "its teacher_batch is 4, and 5 was asked for"),
        ({"from_crops": False}, "has crops of 32 pixels and no images, the teacher takes 48"),
    ],
)
def test_settings_that_kept_crops_cannot_have_are_refused(made, tmp_path, changes, message):
    kept = open_kept_views(made / "raw")
    recipe = dataclasses.replace(over_kept_views(DINO, kept), **changes)
    with pytest.raises(ConfigError, match=message):
        extract(kept, tmp_path / "part", recipe, teacher=LargerMeans())
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("crops", ["raw", "jpeg"])
def test_damaged_crops_are_not_shown_to_a_teacher(made, tmp_path, crops):
    store = shutil.copytree(made / crops, tmp_path / "store")
    path = store / crop_path(1, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StoreCorrupt, match="is damaged"):
        from_crops(store, tmp_path / "part", OtherMeans())


def test_another_decoder_is_refused(made, tmp_path, monkeypatch):
    """A part whose teacher saw other pixels than the stored hash says would not be what its store records."""
    decode = kept_module.decode_crop
    monkeypatch.setattr(kept_module, "decode_crop", lambda *given: decode(*given) ^ 1)
    with pytest.raises(PixelDrift, match="decodes to other pixels than those whose hash is stored"):
        from_crops(made / "jpeg", tmp_path / "part", OtherMeans())


def test_some_of_the_images_can_be_taken(made, tmp_path):
    kept = open_kept_views(made / "raw")
    some = kept.take([9, 2, 5, 17])
    extract(
        some, tmp_path / "some", dataclasses.replace(over_kept_views(DINO, kept), max_failed=0.5), teacher=OtherMeans()
    )
    part, whole = Store(tmp_path / "some"), Store(made / "raw")
    assert part.keys == [whole.keys[number] for number in (2, 5, 9, 17)]
    for place, number in enumerate((2, 5, 9, 17)):
        if number in whole.valid_images:
            assert np.array_equal(StoredCrops(part).crop(1, place), StoredCrops(whole).crop(1, number))


def test_rows_are_as_wide_as_the_teacher(made, tmp_path):
    extract(made / "images", tmp_path / "part", DINO, teacher=LargerMeans(OTHER_PX, 24))
    assert Store(tmp_path / "part").read_rows(TARGET, 0, [0]).shape == (1, 5, WIDTH)
