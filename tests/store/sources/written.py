"""The same few images as every kind of source, with names that are hard on someone."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

ODD_NAMES = (
    "plain",
    "with space",
    "üñí 漢字",
    "new\nline",
    "tab\there",
    "quote\"'",
    "# hash",
    "back\\slash",
    "a,b;c",
    "%41",
)
CLASSES = ("cat", "dog")


def odd_images(count: int = len(ODD_NAMES)) -> dict[str, bytes]:
    """PNG files by name, without suffix."""
    random = np.random.default_rng(0)
    made = {}
    for number in range(count):
        name = ODD_NAMES[number] if number < len(ODD_NAMES) else f"{number:04d}"
        coarse = random.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(buffer, "png")
        made[name] = buffer.getvalue()
    return made


def label_of(name: str) -> int:
    return len(name) % 2


def write_files(folder: Path, images: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        (folder / name).write_bytes(data)
    return folder


def write_list(file: Path, images: dict[str, bytes]) -> Path:
    """A list whose images, `<name>.png`, lie in a folder called like it."""
    write_files(file.with_suffix(""), {f"{name}.png": data for name, data in images.items()})
    lines = [f"{json.dumps(f'{file.stem}/{name}.png')}\t{label_of(name)}" for name in images]
    file.write_text("# odd names\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return file


def write_webdataset(file: Path, images: dict[str, bytes]) -> Path:
    """A tar by webdataset's own writer."""
    import webdataset

    file.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(file)) as writer:
        for name, data in images.items():
            writer.write({"__key__": name, "png": data, "cls": label_of(name)})
    return file


def write_tar(file: Path, members: dict[str, bytes], mode: str = "w", **options) -> Path:
    """A tar by the standard library."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode, **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def huggingface_schema() -> pa.Schema:
    """What `datasets` writes for an image and a label."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def make_table(images: dict[str, bytes]) -> pa.Table:
    rows = [{"image": {"bytes": data, "path": f"{name}.png"}, "label": label_of(name)} for name, data in images.items()]
    return pa.Table.from_pylist(rows, huggingface_schema())


def write_parquet(file: Path, images: dict[str, bytes], row_group_size: int = 3) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(make_table(images), file, row_group_size=row_group_size)
    return file


def write_arrow(file: Path, images: dict[str, bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = make_table(images)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return file
