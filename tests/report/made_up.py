"""Folders as the commands leave them, with made-up numbers: a run, all that judges it, and its store."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from caev2.eval.entrants import RunFacts, sha256_of_file
from caev2.eval.finetuning.recipes import DEMO as FINETUNE
from caev2.eval.interval import spread, wilson
from caev2.eval.probes.protocols import ProbeSettings, settings_of
from caev2.eval.result import Judged, ProbeResult, save_result
from caev2.eval.segmentation.confusion import SegmentationScore
from caev2.eval.segmentation.run import SegmentationResult, Segmented
from caev2.eval.segmentation.training import SegmentationSettings
from caev2.extract.recipes import DEMO as EXTRACT
from caev2.pretrain.identity import RunIdentity, claim_run, settled
from caev2.pretrain.recipes import DEMO, PretrainRecipe
from caev2.pretrain.weights.checkpoint import FORMAT
from caev2.pretrain.weights.tensor_file import write_tensors
from caev2.recipe import fingerprint, to_mapping
from caev2.store.codecs.quality import Figures, Quality
from caev2.store.layout import codec_path
from caev2.store.manifest import FILE_NAME, Manifest, StoreSpec, TargetSpec

TEACHER = {"name": "demo", "sha256": "61" * 32, "image_px": 64, "patch_px": 8, "tokens": 65, "precision": "fp32"}
CLASSES = tuple("0123456789")
VAL = 5000
STEPS = 1034
# right answers of pixels, random start, student, teacher, as a full demo found them
FOUND = {
    "knn": (0.441, 0.107, 0.877, 0.949),
    "linear": (0.347, 0.329, 0.909, 0.954),
    "1-shot": (0.107, 0.098, 0.637, 0.769),
    "5-shot": (0.120, 0.100, 0.816, 0.920),
    "10-shot": (0.119, 0.100, 0.853, 0.941),
    "attentive": (None, 0.294, 0.900, 0.952),
}
ROLES = ("pixels", "random start", "student", "teacher")


def manifest_of(codec: str = "lloyd4") -> Manifest:
    target = TargetSpec(teacher=TEACHER, tap="projected", tokens=65, width=128, codec=codec, tables="ab" * 8)
    return Manifest(
        spec=StoreSpec(views=EXTRACT.views, targets={"projected": target}),
        images=6000, views=2, source_digest="cd" * 32, classes=CLASSES, state="sealed", root_digest="4d" * 32,
    )  # fmt: skip


def make_store(folder: Path) -> Manifest:
    """A store as far as its manifest and the quality of its codec go; no row."""
    manifest = manifest_of()
    (folder / codec_path("projected")).mkdir(parents=True)
    (folder / FILE_NAME).write_bytes(manifest.to_bytes())
    (folder / codec_path("projected") / "quality.json").write_text(quality_of_codec().to_json())
    return manifest


def quality_of_codec() -> Quality:
    class_token = Figures(
        tokens=1000, relative_error=0.0104, cosine_mean=0.9981, cosine_p1=0.9962, centred_cosine_mean=0.9948,
        centred_cosine_p1=0.9911,
    )  # fmt: skip
    patches = dataclasses.replace(class_token, tokens=64_000, relative_error=0.0121, centred_cosine_mean=0.9939)
    return Quality(class_token=class_token, patch_tokens=patches)


def identity_of(recipe: PretrainRecipe = DEMO, manifest: Manifest | None = None) -> RunIdentity:
    manifest = manifest or manifest_of()
    return RunIdentity(
        recipe=settled(recipe, "fp32"),
        store_fingerprint=manifest.spec.fingerprint(),
        store_digest=manifest.root_digest or "",
        target=manifest.spec.targets["projected"].mapping(),
        views=to_mapping(manifest.spec.views),
    )


def make_checkpoint(run: Path, identity: RunIdentity, step: int) -> Path:
    path = run / "checkpoints" / f"step-{step:09d}.safetensors"
    weights = {"model/weight": torch.full((2, 3), float(step))}
    write_tensors(path, weights, {"format": FORMAT, "step": step, "fingerprint": identity.fingerprint()})
    return path


def facts_of(identity: RunIdentity, checkpoint: Path, step: int) -> RunFacts:
    return RunFacts(
        fingerprint=identity.fingerprint(), step=step, checkpoint_sha256=sha256_of_file(checkpoint),
        store_fingerprint=identity.store_fingerprint, store_digest=identity.store_digest, target=identity.target,
    )  # fmt: skip


def write_log(run: Path, *, steps: int = STEPS, judged: bool = True, phase: int = 0) -> None:
    lines = []
    for step in [*range(0, steps - 1, 10), steps - 1]:
        done = step / steps
        noise = 0.012 * math.sin(step * 1.7 + phase) * math.cos(step / 31)
        rise = 0.86 * (1 - math.exp(-5 * done)) - 0.03 * phase + noise
        record = {"step": step, "epoch": 11 * step // steps, "view": 0, "lr": 0.001, "loss": 1.02 - rise}
        record |= {"cosine_class": rise * 1.03, "cosine_visible": rise, "cosine_masked": 0.93 * rise - 0.01}
        record |= {
            "grad_norm": 0.2,
            "applied": True,
            "images_per_s": 290 + 400 * noise,
            "data_wait_percent": 3 + 40 * abs(noise),
        }
        lines.append(record)
        if judged and step and step % 100 == 0:
            lines.append(
                {"step": step, "epoch": 11 * step // steps, "knn_percent": round(88 * (1 - math.exp(-4 * done)), 2)}
            )
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def judged_as(role, place: int, classes) -> Judged:
    accuracy, draws, per_class = {}, {}, {}
    for number, (kind, values) in enumerate(FOUND.items()):
        if values[place] is None:
            continue
        accuracy[kind] = wilson(round(values[place] * VAL), VAL)
        if kind.endswith("-shot"):
            draws[kind] = tuple(values[place] + 0.03 * math.sin(3 * draw + number) for draw in range(5))
            accuracy[kind] = spread(draws[kind])
        per_class[kind] = tuple(
            min(max(values[place] + 0.13 * math.sin(2.1 * one + place + number), 0.0), 1.0)
            for one in range(len(classes))
        )
    name = "teacher demo" if role == "teacher" else role
    protocol = {kind: {} for kind in accuracy}
    return Judged(
        role=role, name=name, accuracy=accuracy, draws=draws, per_class=per_class, protocol=protocol, resize_px=64, crop_px=64,
        sha256=TEACHER["sha256"] if role == "teacher" else None,
    )  # fmt: skip


def probe_result(facts: RunFacts | None, classes=CLASSES, **changes) -> ProbeResult:
    kinds = ("knn", "linear", "few-shot", "attentive")
    values = {
        "subjects": tuple(judged_as(role, place, classes) for place, role in enumerate(ROLES)), "classes": classes,
        "train_images": 6000, "val_images": VAL, "train_digest": "a" * 64, "val_digest": "b" * 64, "orientation": "exif",
        "seed": 0, "settings": settings_of(kinds, ProbeSettings()), "run": facts,
    }  # fmt: skip
    return ProbeResult(**{**values, **changes})


def segmentation_result(facts: RunFacts | None) -> SegmentationResult:
    subjects = []
    for role, value in (("random start", 0.069), ("student", 0.572), ("teacher", 0.589)):
        iou = tuple(min(value + 0.2 * math.sin(number), 1.0) if value > 0.2 else value for number in range(12))
        mean = dataclasses.replace(wilson(round(value * 2000), 2000), value=value)
        score = SegmentationScore(mean_iou=mean, pixel_accuracy=0.9, class_accuracy=0.7, iou=iou)
        name = "teacher demo" if role == "teacher" else role
        subjects.append(Segmented(role=role, name=name, score=score, resize_px=64, crop_px=64))
    return SegmentationResult(
        subjects=tuple(subjects), classes=12, ignore=255, settings=SegmentationSettings(epochs=10), train_images=1000,
        val_images=500, digests={"train images": "e" * 64}, orientation="exif", seed=0, run=facts,
    )  # fmt: skip


def make_tuned(folder: Path, role, value: float, facts: RunFacts | None = None, epochs: int = 5) -> None:
    recipe = dataclasses.replace(FINETUNE, epochs=epochs)
    claim = {
        "start": {"role": role, "digest": "5d" * 16},
        "recipe": {**to_mapping(recipe, result_only=True), "precision": "fp32"},
    }
    claim["images"] = {"train": "5a" * 32, "val": "c8" * 32, "orientation": "exif"}
    claim["fingerprint"] = fingerprint(claim)
    folder.mkdir(parents=True)
    (folder / "finetune.json").write_text(json.dumps(claim))
    per_class = tuple(min(max(value + 0.1 * math.sin(number), 0.0), 1.0) for number in range(10))
    protocol = {"finetune": {"fingerprint": claim["fingerprint"], "best_epoch": None}}
    judged = Judged(
        role=role, name="teacher demo" if role == "teacher" else role, accuracy={"finetune": wilson(round(value * 1000), 1000)},
        per_class={"finetune": per_class}, protocol=protocol, resize_px=64, crop_px=64,
    )  # fmt: skip
    result = probe_result(
        facts, subjects=(judged,), train_images=1000, val_images=1000, train_digest="5a" * 32, val_digest="c8" * 32,
        settings={"finetune": claim["recipe"]},
    )  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result.mapping()))


def make_picture(path: Path, width: int = 900, height: int = 300) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(width).integers(0, 255, (6, 18, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST).save(path)


def make_run(
    folder: Path, recipe: PretrainRecipe = DEMO, *, classes=CLASSES, step: int = STEPS, beside: bool = True
) -> RunIdentity:
    """A run that was trained, probed, segmented, fine-tuned and shown; unless told otherwise, its store lies beside it."""
    identity = identity_of(recipe, make_store(folder.parent / "store") if beside else manifest_of())
    folder.mkdir(parents=True)
    claim_run(folder, identity)
    write_log(folder)
    facts = facts_of(identity, make_checkpoint(folder, identity, step), step)
    save_result(probe_result(facts, classes), folder)
    save_result(segmentation_result(facts), folder, "segmentation.json")
    for role, value in (("random start", 0.099), ("student", 0.868), ("teacher", 0.928)):
        make_tuned(folder / "finetuned" / role.replace(" ", "-"), role, value)
    make_picture(folder / "pictures" / "patches.png", 900, 620)
    make_picture(folder / "pictures" / "attention.png", 1200, 360)
    return identity
