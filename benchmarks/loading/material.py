"""Stores to load from: views of real photographs at 224 pixels, and latents that nobody computed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from caev2.demo.photographs import photographs
from caev2.store.codecs.calibration import fit_codec
from caev2.store.codecs.catalog import codec_named
from caev2.store.index import Listing
from caev2.store.manifest import Manifest, StoreSpec, TargetSpec
from caev2.store.pixels.crops import CropEncoding, as_kept
from caev2.store.pixels.views import ViewSettings, render_views
from caev2.store.records import describe_file
from caev2.store.unit_writer import RenderedView
from caev2.store.writer import StoreWriter

TOKENS, WIDTH, VIEWS, SIZE_PX = 197, 512, 2, 224
TEACHER = {"name": "made-up", "sha256": "0" * 64, "precision": "fp32"}
DISTINCT = 16
"""Latents of so many images are drawn; the others' are theirs, rolled by some channels."""


def write_store(path: Path, images: int, codec: str, crops: CropEncoding, block_images: int = 512) -> Path:
    """A sealed store of some views of some photographs; one that is there already is left as it is."""
    if (path / "manifest.json").exists():
        return path
    target = TargetSpec(teacher=TEACHER, tap="projected", tokens=TOKENS, width=WIDTH, codec=codec)
    views = ViewSettings(size_px=SIZE_PX)
    manifest = Manifest(
        spec=StoreSpec(views=views, targets={"projected": target}, crops=crops, block_images=block_images),
        images=images,
        views=VIEWS,
        source_digest="made up",
        classes=(),
        state="building",
    )
    keys = [f"{number:06d}" for number in range(images)]
    writer, latents = StoreWriter(path, manifest, Listing(keys=keys, paths=keys, labels=[-1] * images)), _latents()
    for name in writer.uncalibrated():
        calibration = latents.reshape(-1, TOKENS, WIDTH)
        writer.calibrate(name, *fit_codec(codec_named(codec), calibration, calibration[:0]))
    pictures = _pictures()
    for block in range(manifest.blocks):
        with writer.unit(block) as unit:
            for number in manifest.images_of_block(block):
                rendered = render_views(views, keys[number], range(VIEWS), next(pictures))
                kept = [RenderedView(view, *as_kept(crops, crop)) for view, crop in rendered]
                row = np.roll(latents[number % DISTINCT], number, axis=-1)
                unit.add_image(describe_file(b"", height=375, width=500), kept, {"projected": row})
            unit.finish()
    writer.seal()
    writer.close()
    return path


def _pictures() -> Iterator[Image.Image]:
    """Photographs of the size of ImageNet's, each another crop of one that scikit-image or scikit-learn carries."""
    random, shipped = np.random.default_rng(0), list(photographs().values())
    while True:
        picture = shipped[int(random.integers(len(shipped)))]
        height, width = picture.shape[:2]
        tallest = min(height, width * 3 // 4)
        box_height = int(random.integers(tallest // 2, tallest + 1))
        box_width = box_height * 4 // 3
        top, left = (int(random.integers(room + 1)) for room in (height - box_height, width - box_width))
        cut = Image.fromarray(picture).crop((left, top, left + box_width, top + box_height))
        yield cut.resize((500, 375), Image.Resampling.BICUBIC)


def _latents() -> np.ndarray:
    """Numbers with the spread of a CLIP's latents, float16 [image, view, token, channel]."""
    random = np.random.default_rng(0)
    spread = np.exp(random.normal(0, 0.5, WIDTH))
    rows = random.standard_normal((DISTINCT, VIEWS, TOKENS, WIDTH)) * spread + 2 * random.standard_normal(WIDTH)
    return (0.3 * rows).astype(np.float16)
