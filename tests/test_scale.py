"""docs/scale.md: its tables are what the code computes, and the code computes what stores and requests really are."""

import gc
import importlib.util
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from caev2.extract.planning.sizes import ImageSizes, store_sizes
from caev2.store.disk import Scratch
from caev2.store.images import open_images
from caev2.store.index import INDEX, index_columns, index_file, write_index
from caev2.store.manifest import read_manifest
from caev2.store.reader import Store
from caev2.store.records import ImageFacts, UnitRecord, _parse_record, read_record
from caev2.store.remote.cache import CacheSettings
from caev2.store.remote.paths import open_remote
from caev2.store.rewriting.copy import copy_store
from tests.s3 import serving_s3
from tests.store.made_up import make_images, make_latents, write_store

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def load_tables():
    spec = importlib.util.spec_from_file_location("scale_tables", ROOT / "benchmarks" / "scale_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scale = load_tables()


@pytest.mark.parametrize("name", scale.TABLES)
def test_a_table_of_the_page_is_what_the_code_computes(name):
    found = {found[2]: found[0] for found in scale.MARKED.finditer(PAGE)}
    assert scale.TABLES[name]() in found[name], "run: python benchmarks/scale_tables.py --write"


def test_every_table_of_the_page_is_computed_or_recommends():
    untouched = scale.MARKED.sub("", PAGE)
    heads = [line for line in untouched.splitlines() if line.startswith("| |")]
    assert heads == ["| | ImageNet-1k | ImageNet-22k | LAION-400M |"]
    assert scale.renew(PAGE) == PAGE


def test_the_numbers_in_running_text_are_those_of_the_tables():
    assert [f"{one.images:,}" in PAGE for one in scale.COLLECTIONS] == [True] * 3
    assert f"measured: {scale.crop_bytes('jpeg'):,.0f} bytes" in PAGE
    assert f"{scale.multiply_adds() / 1e9:.1f} × 10⁹ multiply-adds" in PAGE
    laion = scale.sizes_of(scale.manifest_of(scale.COLLECTIONS[2], "lloyd4", 4))
    assert f"{laion.files / 1e6:.0f} million files" in PAGE
    assert f"{scale.LISTED_BYTES} bytes at the most" in PAGE
    assert f"{scale.OPENED_BYTES} for the numbers" in PAGE
    assert f"{scale.SEALED_BYTES} to seal" in PAGE
    for dollars in (scale.STORED_DOLLARS_PER_GB_MONTH, scale.WRITE_DOLLARS_PER_1000, scale.READ_DOLLARS_PER_1000):
        assert f"${dollars:.4g} " in PAGE
    assert f"of which {scale.UTILISATION:.0%}".replace("%", " %") in PAGE
    assert scale.measured()["date"] in PAGE


@pytest.fixture(params=[("zarr", None), ("zarr", "jpeg"), ("webdataset", None), ("webdataset", "jpeg")], ids=str)
def store(request, tmp_path):
    layout, crops = request.param
    return write_store(tmp_path / "store", make_images(tmp_path / "images"), make_latents(), layout=layout, crops=crops)


def test_files_and_bytes_are_those_of_a_store(store):
    manifest = read_manifest(store)
    records = [read_record(store, manifest, block) for block in range(manifest.blocks)]
    valid = sum(image.reason is None for record in records for image in record.images)
    kept = Store(store)
    crops = [len(kept.read_crop(0, int(image))) for image in kept.valid_images] if manifest.spec.crops else [0]
    images = ImageSizes(
        crop_bytes=float(np.mean(crops)),
        key_bytes=10.0,
        valid_share=valid / manifest.images,
        index_bytes=(store / INDEX).stat().st_size,
    )
    sizes, files = store_sizes(manifest, images), [path for path in store.rglob("*") if path.is_file()]
    assert sizes.files == len(files)
    # rows of 40 bytes: a store of nothing but overheads
    assert sizes.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.03)


class Requests(Counter):
    """Counts what s3fs asks a server for."""

    def __init__(self, monkeypatch):
        super().__init__()
        client = pytest.importorskip("aiobotocore.client").AioBaseClient
        call = client._make_api_call

        async def counted(client, operation, arguments):
            self[operation] += 1
            return await call(client, operation, arguments)

        monkeypatch.setattr(client, "_make_api_call", counted)


def test_requests_are_those_that_a_server_is_asked(store, tmp_path, monkeypatch):
    with serving_s3(monkeypatch) as bucket:
        requests = Requests(monkeypatch)

        def there(cache):
            return open_remote(f"{bucket}/store", CacheSettings(folder=tmp_path / cache, limit_bytes=1 << 30))

        copy_store(store, there("writing"))
        manifest = read_manifest(store)
        wanted = scale.requests_of(manifest)
        assert wanted["head"] == sum(path.is_file() for path in store.rglob("*")) == requests["HeadBucket"]
        assert requests["PutObject"] + 2 == wanted["write"]
        assert requests["ListObjectsV2"] <= 3

        remote = Store(there("reading"))
        rows = remote.valid_images
        read_view(remote, 0, rows)
        requests.clear()
        read_view(remote, 1, rows)
        assert requests == {"GetObject": wanted["epoch"]}
        assert wanted["epoch"] == manifest.blocks * len(remote._files_of(["projected"], 1, 0))

        read_first = Store(there("records"))
        read_first.view_values("valid", 0, rows)
        requests.clear()
        again = Store(there("more"))
        again.view_values("valid", 0, rows)
        # the manifest with its HEAD, the records, and the one small file of each block
        assert requests.total() == 2 + wanted["records"] + manifest.blocks


def read_view(store, view, rows):
    """Whatever training looks at."""
    store.read_rows("projected", view, rows)
    for field in ("box", "flip", "order", "factors", "grey_mean", "crop_hash"):
        store.view_values(field, view, rows)
    if store.manifest.spec.crops:
        for image in rows.tolist():
            store.read_crop(view, image)


def test_pieces_of_large_files_are_those_that_s3fs_asks_for(tmp_path):
    """At a hundredth of the size: the sizes of its pieces are settings."""
    from s3fs.core import S3FileSystem, calculate_chunksize

    assert S3FileSystem.default_block_size == scale.GET_PIECE_BYTES
    assert calculate_chunksize(1) == scale.PUT_PIECE_BYTES
    assert [scale.get_requests(size) for size in (1, 50 << 20, (50 << 20) + 1, 103_000_000)] == [1, 1, 3, 3]
    assert [scale.put_requests(size) for size in (1, 99 << 20, 100 << 20, 500 << 20)] == [1, 1, 4, 12]


def make_records(count):
    """Images as ImageNet has them: names of thirty characters, many classes, sizes of all kinds."""
    random = np.random.default_rng(0)
    names = [(f"n{1440764 + 37 * (number // 1300):08d}", number * 7 % 20_000) for number in range(count)]
    keys = tuple(sorted(f"{name}/{name}_{place}.JPEG" for name, place in names))
    facts = tuple(
        ImageFacts(
            height=int(random.integers(300, 600)),
            width=int(random.integers(300, 600)),
            bytes=int(random.integers(20_000, 200_000)),
            xxh3_128=random.bytes(16).hex(),
            reason=None,
        )
        for _ in range(count)
    )
    return keys, UnitRecord(block=0, fingerprint="", source_digest="", files={}, images=facts)


def test_memory_and_index_of_an_image_are_what_the_page_takes_them_for(tmp_path):
    count = 5000
    keys, record = make_records(count)
    for key in keys:
        (tmp_path / "images" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / key).touch()
    gc.collect()
    tracemalloc.start()
    source = open_images(tmp_path / "images")
    listed, peak = tracemalloc.get_traced_memory()
    data = record.to_bytes()
    del record
    gc.collect()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    columns = index_columns([_parse_record(data)], source.listing())
    scratch = Scratch(tmp_path / "scratch")
    write_index(tmp_path, columns, scratch.folder)
    sealing = tracemalloc.get_traced_memory()[1] - before + listed
    tracemalloc.stop()
    scratch.close()
    assert peak / count == pytest.approx(scale.LISTED_BYTES, rel=0.25)
    assert sealing / count == pytest.approx(scale.SEALED_BYTES, rel=0.25)
    assert len(index_file(columns)) / count == pytest.approx(scale.INDEX_BYTES, rel=0.15)
    assert np.mean([len(key) for key in keys]) == pytest.approx(scale.KEY_BYTES, abs=1.5)


def test_the_multiply_adds_are_those_that_torch_counts():
    with torch.device("meta"):
        tower = timm.create_model("vit_base_patch16_224", num_classes=0).eval()
        for block in tower.blocks:
            block.attn.fused_attn = False  # which torch counts on a GPU only
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            tower(torch.empty(1, 3, 224, 224))
    projections = scale.TOKENS * 768 * scale.WIDTH
    assert counter.get_total_flops() / 2 + projections == pytest.approx(scale.multiply_adds(), rel=1e-3)
