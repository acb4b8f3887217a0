"""The main job at full size: a ViT-B/16 teacher from an OpenAI archive, real photographs, the published recipes."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from caev2.demo.photographs import write_photographs
from caev2.extract.recipes import RECIPES as EXTRACT_RECIPES
from caev2.extract.run import extract
from caev2.pretrain.recipes import RECIPES as PRETRAIN_RECIPES
from caev2.pretrain.run import pretrain
from caev2.pretrain.telling.log import read_log
from caev2.store.reader import Store
from caev2.store.verify import verify_store

EXAMPLE = Path(__file__).parents[1] / "examples" / "make_random_clip.py"


@pytest.mark.slow
def test_photographs_become_targets_and_the_published_students_train_on_them(tmp_path):
    archive, photographs = tmp_path / "ViT-B-16.pt", tmp_path / "photographs"
    subprocess.run([sys.executable, EXAMPLE, archive], check=True, capture_output=True)
    count = len(write_photographs(photographs))
    recipe = dataclasses.replace(
        EXTRACT_RECIPES["base-300e"],
        teacher=f"openclip:ViT-B-16-quickgelu@{archive}",
        view_count=2,
        teacher_batch=8,
        workers=0,
    )
    result = extract(photographs, tmp_path / "store", recipe)
    assert (result.rows_computed, result.failures) == (2 * count, ())
    store = Store(tmp_path / "store")
    assert store.read_rows("projected", 1, [0]).shape == (1, 197, 512)
    assert verify_store(store).problems == ()
    for name in ("tiny-300e", "base-300e"):
        student = dataclasses.replace(PRETRAIN_RECIPES[name], batch_size=4, epochs=1, log_steps=1, workers=0)
        student = dataclasses.replace(
            student, optimizer=dataclasses.replace(student.optimizer, warmup_epochs=0.0, lr=1e-3)
        )
        pretrain(store, tmp_path / name, student, images=photographs, stop_after=3)
        losses = [record["loss"] for record in read_log(tmp_path / name)]
        assert len(losses) == 3
        assert losses[-1] < losses[0]  # a random teacher's latents share a direction: the first steps find it
