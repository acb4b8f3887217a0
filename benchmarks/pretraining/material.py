"""Photographs, a teacher and a store, made once."""

import subprocess
import sys
from pathlib import Path

from caev2.extract.recipes import ExtractRecipe
from caev2.extract.run import extract
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.teacher import default_precision
from caev2.store.codecs.quality import QualityFloor

from .setting import Material

EXAMPLE = Path(__file__).parents[2] / "examples" / "make_random_clip.py"
ANY_FIDELITY = QualityFloor(
    relative_error=1.0, cosine_mean=0.0, cosine_p1=0.0, centred_cosine_mean=0.0, centred_cosine_p1=0.0
)
"""A codec fitted to few images is not faithful; how long it takes does not depend on that."""


def make_material(folder: Path, photographs: Path, device: str) -> Material:
    """A random teacher, and a store of two views of each photograph, with 4-bit codes and JPEG crops.

    What lies in the folder already is used again.
    """
    archive, precision = folder / "ViT-B-16.pt", default_precision(device)
    if not archive.exists():
        subprocess.run([sys.executable, EXAMPLE, archive], check=True, capture_output=True)
    store = folder / f"{photographs.name}-{precision}.store"
    material = Material(photographs=photographs, archive=archive, store=store)
    recipe = ExtractRecipe(
        teacher=material.teacher_name,
        precision=precision,
        view_count=2,
        codec="lloyd4",
        floor=ANY_FIDELITY,
        crops="jpeg",
        block_images=64,
        teacher_batch=256 if precision == "fp16" else 16,
    )
    extract(photographs, store, recipe, teacher=load_teacher(recipe.teacher, device=device), device=device)
    return material
