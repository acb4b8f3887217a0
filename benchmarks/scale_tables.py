"""The tables of docs/scale.md, computed by the code that lays stores out.

    python benchmarks/scale_tables.py [--write]

Without --write they are printed; with it they replace those of the page, each between a pair of comments that name it.
The rates are those of the newest benchmarks/results/dry-run-*.json. tests/test_scale.py compares the page with these
functions, and these functions with stores and requests made on the spot.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caev2.extract.planning.sizes import ImageSizes, StoreSizes, store_sizes
from caev2.extract.recipes import PUBLISHED
from caev2.store.layout import VIEW_FIELDS, files_of_unit
from caev2.store.manifest import Manifest, StoreSpec, TargetSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Collection:
    """A set of images that is worked out."""

    name: str
    images: int
    classes: int


COLLECTIONS = (
    Collection("ImageNet-1k", 1_281_167, 1000),
    Collection("ImageNet-22k", 14_197_122, 21_841),
    Collection("LAION-400M", 400_000_000, 0),
)
CODECS = {"float16": "float16", "int8": "int8", "lloyd4": "lloyd4", "klt": "klt at half"}
VIEWS = (1, 4, 8)
CROPS = (None, "jpeg", "raw")
TOKENS, WIDTH = 197, 512  # CLIP ViT-B/16 at 224 pixels, projected

# assumptions, each said on the page
KEY_BYTES, INDEX_BYTES = 30.0, 34  # an image of ImageNet in the index, compressed: tests/test_scale.py makes one
LISTED_BYTES, OPENED_BYTES, SEALED_BYTES = 330, 32, 680  # memory an image: measured in tests/test_scale.py
STORED_DOLLARS_PER_GB_MONTH, WRITE_DOLLARS_PER_1000, READ_DOLLARS_PER_1000 = 0.023, 0.005, 0.0004
DEVICES = {"312 TFLOP/s": 312e12, "989 TFLOP/s": 989e12}
UTILISATION = 0.4
IMAGES_PER_S = (500, 2000, 8000)

# requests of s3fs 2026.9, counted in tests/test_scale.py
LISTED_AT_ONCE, GET_PIECE_BYTES, PUT_PIECE_BYTES = 1000, 50 << 20, 50 << 20


def measured() -> dict:
    """The newest rates of benchmarks/dry_run.py."""
    newest = max((ROOT / "benchmarks" / "results").glob("dry-run-*.json"))
    return json.loads(newest.read_text())


def crop_bytes(crops: str | None) -> float:
    four = measured()["views"]["4"]
    return {None: 0.0, "jpeg": four["crops_bytes"] / four["rows"], "raw": 3.0 * PUBLISHED.views.size_px**2}[crops]


def manifest_of(collection: Collection, codec: str, views: int, crops: str | None = None, **other) -> Manifest:
    teacher = {"name": "openclip:ViT-B-16-quickgelu", "sha256": "0" * 64, "precision": "fp16"}
    target = TargetSpec(teacher=teacher, tap="projected", tokens=TOKENS, width=WIDTH, codec=codec)
    return Manifest(
        spec=StoreSpec(
            views=PUBLISHED.views,
            targets={"projected": target},
            block_images=other.pop("block_images", PUBLISHED.block_images),
            crops=crops,
        ),
        images=collection.images,
        views=views,
        source_digest="0" * 64,
        classes=tuple(f"n{number:08d}" for number in range(collection.classes)),
        state="building",
        **other,
    )


def sizes_of(manifest: Manifest) -> StoreSizes:
    images = ImageSizes(
        crop_bytes=crop_bytes(manifest.spec.crops), key_bytes=KEY_BYTES, index_bytes=INDEX_BYTES * manifest.images
    )
    return store_sizes(manifest, images)


def say_size(count: float) -> str:
    """Three digits and a unit, in powers of ten."""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} bytes"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _two_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:#.2g}"


def say_dollars(value: float) -> str:
    return f"${value:,.0f}" if value >= 10 else f"${value:,.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rows_table() -> str:
    """What a row takes."""
    one = Collection("", PUBLISHED.block_images, 0)
    lines = []
    for codec, name in CODECS.items():
        manifest = manifest_of(one, codec, 1)
        row, sizes = manifest.spec.targets["projected"].row_bytes, sizes_of(manifest)
        tar = sizes_of(manifest_of(one, codec, 1, layout="webdataset"))
        shard = sizes.codes_bytes
        stored = [(s.codes_bytes + s.views_bytes) / one.images for s in (sizes, tar)]
        lines.append([f"{name} (`{codec}`)", f"{row:,}", *(f"{value:,.0f}" for value in stored), say_size(shard)])
    return table(("codec", "bytes a row", "on disk, zarr", "on disk, webdataset", "shard of 512 rows"), lines)


def bytes_table(collection: Collection) -> str:
    lines = []
    for codec, name in CODECS.items():
        for crops in CROPS:
            sizes = [sizes_of(manifest_of(collection, codec, views, crops)).bytes for views in VIEWS]
            lines.append([name, crops or "none", *map(say_size, sizes)])
    return table(("codec", "crops", *(_views(count) for count in VIEWS)), lines)


def _views(count: int) -> str:
    return "1 view" if count == 1 else f"{count} views"


def files_table() -> str:
    lines = []
    for collection in COLLECTIONS:
        for block_images in (512, 2048, 8192):
            manifests = [
                manifest_of(collection, "lloyd4", views, block_images=block_images, layout=layout)
                for layout in ("zarr", "webdataset")
                for views in VIEWS
            ]
            sizes = [sizes_of(manifest) for manifest in manifests]
            files = [f"{one.files:,}" for one in sizes]
            shard = sizes[1].codes_bytes / sizes[1].row_files
            counts = (block_images, manifests[0].blocks, sizes[1].row_files)
            lines.append([collection.name, *(f"{n:,}" for n in counts), say_size(shard), *files[:3], files[4]])
    head = ("images", "block", "units", "shards, 4 views", "one shard", *(f"files, {_views(k)}" for k in VIEWS))
    return table((*head, "tars, 4 views"), lines)


def put_requests(size: float) -> int:
    """To write a file: one, or a multipart upload of two requests around its pieces; and one HEAD of the bucket."""
    return 1 if size < 2 * PUT_PIECE_BYTES else 2 + math.ceil(size / PUT_PIECE_BYTES)


def get_requests(size: float) -> int:
    """To read a file: one; of a larger one that is broken off, and its pieces are asked for."""
    return 1 if size <= GET_PIECE_BYTES else 1 + math.ceil(size / GET_PIECE_BYTES)


def files_of_view(manifest: Manifest) -> list[str]:
    """The files that training on the one target reads of one view of a block."""
    infix = ("/c/0/", "/data/0/", "tars/0/")
    return sorted(
        path
        for path in files_of_unit(manifest, 0)
        if any(part in path for part in infix) and not path.startswith("views/thumbnail")
    )


def requests_of(manifest: Manifest) -> dict[str, int]:
    """Requests of copying a store to an object store, of its first epoch there, and of each further one."""
    sizes = sizes_of(manifest)
    shard = (sizes.codes_bytes + sizes.crops_bytes) / sizes.row_files
    small = sizes.files - sizes.row_files
    read = len(files_of_view(manifest))
    shards = sizes.row_files // (manifest.blocks * manifest.views)
    epoch = manifest.blocks * (read - shards + shards * get_requests(shard))
    return {
        "write": small + sizes.row_files * put_requests(shard) + 2,  # and two that list what is there: nothing
        "head": sizes.files,
        "list_again": math.ceil(sizes.files / LISTED_AT_ONCE),
        "epoch": epoch,
        "records": 3 * manifest.blocks,  # record, and the manifest's HEAD and GET
    }


def requests_table() -> str:
    lines = []
    for collection in COLLECTIONS:
        for block_images in (512, 8192):
            for layout in ("zarr", "webdataset"):
                manifest = manifest_of(collection, "lloyd4", 4, layout=layout, block_images=block_images)
                count = requests_of(manifest)
                cells = [count["write"], count["head"], count["list_again"], count["records"], count["epoch"]]
                lines.append([collection.name, f"{block_images:,}", layout, *(f"{value:,}" for value in cells)])
    head = ("images", "block", "layout", "PUT", "HEAD", "LIST to go on", "records, once", "GET an epoch")
    return table(head, lines)


def cost_table() -> str:
    lines = []
    for collection in COLLECTIONS:
        for codec, name in CODECS.items():
            for crops in (None, "jpeg"):
                manifest = manifest_of(collection, codec, 4, crops)
                size, count = sizes_of(manifest).bytes, requests_of(manifest)
                month = size / 1e9 * STORED_DOLLARS_PER_GB_MONTH
                write = (count["write"] * WRITE_DOLLARS_PER_1000 + count["head"] * READ_DOLLARS_PER_1000) / 1000
                epoch = count["epoch"] * READ_DOLLARS_PER_1000 / 1000
                lines.append([collection.name, name, crops or "none", *map(say_dollars, (month, write, epoch))])
    head = ("images", "codec", "crops", "storage a month", "requests of writing", "requests of an epoch")
    return table(head, lines)


def multiply_adds() -> int:
    """Of a forward pass of CLIP ViT-B/16 at 224 pixels: patches, twelve blocks, projection of every token."""
    width, depth, patch_values = 768, 12, 3 * 16**2
    block = (
        12 * width**2 * TOKENS + 2 * TOKENS**2 * width
    )  # four projections, an MLP of four times the width, attention
    return (TOKENS - 1) * patch_values * width + depth * block + TOKENS * width * WIDTH


def teacher_rows_per_s(flops: float) -> float:
    return flops * UTILISATION / (2 * multiply_adds())


def hours_table() -> str:
    here = measured()["views"]["4"]["teacher_rows_per_s"]
    rates = {name: teacher_rows_per_s(flops) for name, flops in DEVICES.items()}
    lines = []
    for collection in COLLECTIONS:
        for views in VIEWS:
            rows = collection.images * views
            hours = [rows / rate / 3600 for rate in rates.values()]
            years = rows / here / 3600 / 24 / 365
            lines.append([collection.name, str(views), f"{rows:,}", *map(_two_digits, (*hours, years))])
    head = ("images", "views", "rows", *(f"device-hours at {name}" for name in rates))
    return table((*head, "years on the CPU that was measured"), lines)


def rates_table() -> str:
    lines = []
    for views, told in measured()["views"].items():
        core = told["decode_rows_per_s_per_core"]  # a GPU encodes what it computed
        cores = [1 + math.ceil(teacher_rows_per_s(flops) / core) for flops in DEVICES.values()]
        cells = [told["decode_rows_per_s_per_core"], told["encode_rows_per_s_per_core"], told["teacher_rows_per_s"]]
        lines.append([views, *(f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in cells)])
        lines[-1] += [f"{count:,}" for count in cores]
    head = ("views", "decode, rows/s a core", "encode, rows/s a core", "teacher, rows/s")
    return table((*head, *(f"cores for {name}" for name in DEVICES)), lines)


def devices_table() -> str:
    lines = [[name, f"{teacher_rows_per_s(flops):,.0f}"] for name, flops in DEVICES.items()]
    return table(("device, dense 16-bit peak", "rows/s"), lines)


def view_bytes(manifest: Manifest) -> float:
    """What training fetches of one view of one image."""
    one = sizes_of(manifest)
    thumbnail = math.prod(VIEW_FIELDS["thumbnail"].shape)
    return (one.codes_bytes + one.crops_bytes + one.views_bytes) / (manifest.images * manifest.views) - thumbnail


def network_table() -> str:
    lines = []
    for codec, name in CODECS.items():
        for crops in CROPS:
            size = view_bytes(manifest_of(COLLECTIONS[0], codec, 4, crops))
            lines.append([name, crops or "none", f"{size:,.0f}", *(f"{say_size(size * n)}/s" for n in IMAGES_PER_S)])
    return table(("codec", "crops", "bytes an image", *(f"{count:,} images/s" for count in IMAGES_PER_S)), lines)


def memory_table() -> str:
    """What one process needs, libraries aside."""
    parts = (LISTED_BYTES, OPENED_BYTES, LISTED_BYTES + OPENED_BYTES, SEALED_BYTES)
    lines = [
        [one.name, say_size(INDEX_BYTES * one.images), *(say_size(part * one.images) for part in parts)]
        for one in COLLECTIONS
    ]
    head = ("images", "index.parquet", "extract", "pretrain, crops kept", "pretrain, from images", "sealing")
    return table(head, lines)


TABLES = {
    "rows": rows_table,
    "imagenet1k": lambda: bytes_table(COLLECTIONS[0]),
    "imagenet22k": lambda: bytes_table(COLLECTIONS[1]),
    "laion": lambda: bytes_table(COLLECTIONS[2]),
    "files": files_table,
    "requests": requests_table,
    "cost": cost_table,
    "devices": devices_table,
    "hours": hours_table,
    "rates": rates_table,
    "network": network_table,
    "memory": memory_table,
}


def renew(page: str) -> str:
    """The page with all of its tables computed anew."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description="The tables of docs/scale.md.")
    parser.add_argument("--write", action="store_true", help="Write them into the page.")
    if parser.parse_args().write:
        PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, make in TABLES.items():
        print(f"{name}\n{make()}")


if __name__ == "__main__":
    main()
