"""Running the teacher again on some rows of a store: is what lies there what it says?"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from caev2.extract.shown import show
from caev2.extract.teachers.teacher import Teacher
from caev2.progress import Progress, Silent
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import decode
from caev2.store.draws import Draws
from caev2.store.pixels.crops import Crops
from caev2.store.reader import Store

LEAST_COSINE = 0.99
"""Between a stored latent and the one computed now, each through the same codec. Another device or precision
costs some 1e-3 at most; other weights, another crop or another normalisation costs far more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """What the teacher says now, beside what is stored."""

    target: str
    rows: int
    class_cosine_min: float
    class_cosine_mean: float
    patch_cosine_min: float
    patch_cosine_mean: float
    problems: tuple[str, ...]
    """One sentence for each row with a token that points elsewhere."""


def recheck(
    store: Store,
    crops: Crops,
    target: str,
    teacher: Teacher,
    count: int,
    *,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
) -> Recheck:
    """Compute some rows anew, from pixels to latents, and compare them with the stored ones.

    Args:
        store: Whose rows.
        crops: Their pixels.
        target: Which target.
        teacher: The one that made it.
        count: Rows; chosen by chance among all valid ones.
        device: Where the teacher is.
        seed: Of the choice.
        progress: Who is told.

    Raises:
        StoreCorrupt: A row's bytes are not those that were written.
        PixelDrift: The images are not what the teacher saw.
        SourceError: It saw boxes at a size of its own, and there are only crops.
    """
    progress = progress or Silent()
    spec = store.manifest.spec.targets[store.target(target)]
    codec, tables = codec_named(spec.codec), store.tables(target)
    draws, cosines, problems = Draws("recheck", seed), [], []
    progress.start("teacher again", count)
    for _ in range(count):
        view, image = draws.integer(store.views), int(store.valid_images[draws.integer(len(store.valid_images))])
        seen = show(crops, store.manifest.spec.views, spec, teacher.description.image_px, view, image)
        crop = torch.from_numpy(seen.copy())[None].to(device)
        latents = teacher.tokens(crop, [spec.tap])[spec.tap].to(torch.float16).cpu().numpy()
        now = decode(codec, codec.encode(latents, tables), tables)
        found = cosine(store.read_rows(target, view, [image])[0], now[0])
        cosines.append(found)
        if found.min() < LEAST_COSINE:
            problems.append(_describe(store, target, view, image, found))
        progress.advance(1)
    progress.finish()
    every = np.stack(cosines)
    return Recheck(
        target=target,
        rows=count,
        class_cosine_min=float(every[:, 0].min()),
        class_cosine_mean=float(every[:, 0].mean()),
        patch_cosine_min=float(every[:, 1:].min(initial=1)),
        patch_cosine_mean=float(every[:, 1:].mean()),
        problems=tuple(problems),
    )


def _describe(store: Store, target: str, view: int, image: int, cosines: np.ndarray) -> str:
    return (
        f"{target}: row of image {image} ({store.keys[image]}), view {view} is not what the teacher says: the cosine "
        f"of token {int(cosines.argmin())} is {cosines.min():.4f}, at least {LEAST_COSINE} was expected"
    )


def cosine(one: Float[np.ndarray, "token width"], other: Float[np.ndarray, "token width"]) -> np.ndarray:
    """Of each token; 1 where both are zero."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    same = ~one.any(-1) & ~other.any(-1)
    return np.where(same, 1.0, (one * other).sum(-1) / np.where(lengths > 0, lengths, 1))
