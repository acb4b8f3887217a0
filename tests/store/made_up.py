"""A small store of made-up latents over made-up images."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from caev2.store.codecs.calibration import fit_codec
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import Tables
from caev2.store.images import ImageSource, open_images
from caev2.store.manifest import Manifest, StoreSpec, TargetSpec
from caev2.store.pixels.crops import as_kept
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import View, ViewSettings, draw_view, render_view
from caev2.store.records import describe_file
from caev2.store.unit_writer import RenderedView
from caev2.store.writer import StoreWriter

IMAGES, VIEWS, TOKENS, WIDTH, BLOCK = 11, 2, 5, 4, 4
DAMAGED = 5  # one image in the middle block cannot be decoded
TEACHER = {"name": "made-up", "sha256": "0" * 64, "precision": "fp32"}


def make_images(folder: Path) -> ImageSource:
    """Eleven images in two classes, one of them damaged."""
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        place = folder / ("cat" if number < 6 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
        if number == DAMAGED:
            (place / f"{number:02d}.png").write_bytes(b"no image at all")
    return open_images(folder)


def make_latents() -> np.ndarray:
    """What the teacher says: [image, view, token, width]."""
    values = np.random.default_rng(1).standard_normal((IMAGES, VIEWS, TOKENS, WIDTH)).astype(np.float16)
    values[0] = 0  # a row of zeros is a row like any other
    return values


def manifest_of(source: ImageSource, codec: str = "float16", **changes) -> Manifest:
    target = TargetSpec(teacher=TEACHER, tap="projected", tokens=TOKENS, width=WIDTH, codec=codec)
    spec = {"views": ViewSettings(size_px=32), "targets": {"projected": target}, "block_images": BLOCK}
    return Manifest(
        spec=StoreSpec(**{**spec, **changes}),
        images=len(source),
        views=VIEWS,
        source_digest=source.digest(),
        classes=source.classes,
        state="building",
    )


def write_unit(writer: StoreWriter, block: int, source: ImageSource, latents: np.ndarray) -> None:
    settings = writer.manifest.spec.views
    with writer.unit(block) as unit:
        for number in writer.manifest.images_of_block(block):
            data = source.read(number)
            if number == DAMAGED:
                unit.add_image(describe_file(data, reason="no known image format"), [], {})
                continue
            image = decode_rgb(data)
            views = [draw_view(settings, source.keys[number], view, image) for view in range(VIEWS)]
            rendered = [_rendered(writer.manifest, image, view) for view in views]
            facts = describe_file(data, height=image.height, width=image.width)
            unit.add_image(facts, rendered, {"projected": latents[number]})
        unit.finish()


def _rendered(manifest: Manifest, image: Image.Image, view: View) -> RenderedView:
    crop, kept = as_kept(manifest.spec.crops, render_view(image, view, manifest.spec.views.size_px))
    return RenderedView(view, crop, kept)


def write_store(
    path: Path,
    source: ImageSource,
    latents: np.ndarray,
    codec: str = "float16",
    *,
    crops: str | None = None,
    layout: str = "zarr",
    tables: Tables | None = None,
) -> Path:
    """A sealed store; a codec that learns is calibrated on the first view of all images but two."""
    manifest = dataclasses.replace(manifest_of(source, codec, crops=crops), layout=layout)
    writer = StoreWriter(path, manifest, source.listing())
    for target in writer.uncalibrated():
        rows = np.delete(latents[:, 0], DAMAGED, axis=0)
        learned = fit_codec(codec_named(codec), rows[:-2], rows[-2:])
        writer.calibrate(target, *(learned if tables is None else (tables, None)))
    for block in writer.pending():
        write_unit(writer, block, source, latents)
    writer.seal()
    return path
