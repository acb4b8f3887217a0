"""Train the demo's teacher: a small CLIP, from nothing but scenes and their captions.

    python examples/train_demo_teacher.py --out teacher.safetensors --seed 1

It takes about 20 minutes on two CPU cores and needs no file beside the installed packages (with their extra
`demo`). The model is open_clip's own `CLIP`; only its image tower is kept, under open_clip's names
(`visual.*`). The file that the package ships was made by this command.

Contrastive training takes shortcuts: with captions that name colour and ground from the start, those are
learned first and digits stay at chance for 90,000 scenes. Hence two stages. In the first, captions name
only the digit, clutter is sparse and crops are gentle; digits are found after some 30,000 scenes. In the
second, half the captions also name colour and ground, crops go down to half the scene, and the text tower
starts anew.

The loss is averaged over the class token and the mean patch, because a student will learn from every
projected token. A batch of 64 repeats its captions, so a caption counts as a match for every scene of which
it is true.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from caev2.demo.scenes import COLOURS, GROUNDS, SCENE_PX, Split, draw_scene

TRAIN_SEED = 1000  # scenes of seeds 0 .. 9 belong to the demo and are never drawn here
PROBE_SEED = 3000
JITTER = 0.3
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("<pad>", "a", "large", "on", *DIGIT_WORDS, *COLOURS, *GROUNDS, "<end>")
"""The vocabulary; `<end>` has the highest id, since CLIP's text tower reads the token at the argmax."""
CAPTION_TOKENS = 8
Labels = Int[Tensor, "image 3"]  # digit, colour, ground


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training."""

    samples: int
    max_extras: int
    smallest_crop: float
    """Of the scene's area."""
    digit_only: float
    """Share of captions that name nothing but the digit."""


STAGES = (
    Stage(samples=67_200, max_extras=1, smallest_crop=0.85, digit_only=1.0),
    Stage(samples=102_400, max_extras=2, smallest_crop=0.5, digit_only=0.5),
)
BATCH, LR, WEIGHT_DECAY, WARMUP_STEPS = 64, 1e-3, 0.05, 100


class Scenes(Dataset):
    """Scenes as uint8 images and their three labels."""

    def __init__(self, seed: int, split: Split, count: int, max_extras: int):
        self.seed, self.count, self.max_extras = seed, count, max_extras
        self.split: Split = split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "3 64 64"], Int[np.ndarray, "3"]]:
        scene = draw_scene(self.seed, self.split, index, max_extras=self.max_extras)
        return scene.image.transpose(2, 0, 1), np.array((scene.digit, scene.colour, scene.ground))


# ---------------------------------------------------------------- model


def build_clip() -> CLIP:
    """A new CLIP; its positions start as sines and cosines, as the two stages were found to work."""
    vision = CLIPVisionCfg(image_size=SCENE_PX, patch_size=8, width=128, layers=4, head_width=32)
    text = CLIPTextCfg(context_length=CAPTION_TOKENS, vocab_size=len(WORDS), width=64, heads=2, layers=2)
    model = CLIP(embed_dim=128, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    positions = get_2d_sincos_pos_embed(128, SCENE_PX // 8, cls_token=True)
    visual: Any = model.visual
    visual.positional_embedding.data.copy_(torch.from_numpy(positions))
    return model


def restart_text_tower(model: CLIP) -> None:
    fresh = build_clip()
    text = {name: value for name, value in fresh.state_dict().items() if not name.startswith("visual.")}
    model.load_state_dict(text, strict=False)


def project_tokens(model: CLIP, images: Float[Tensor, "image 3 64 64"]) -> Float[Tensor, "image token width"]:
    """Every token after the final norm and the projection, what a student learns from; class token first."""
    visual: Any = model.visual  # open_clip declares no types
    return visual.ln_post(visual.transformer(visual._embeds(images))) @ visual.proj


# ---------------------------------------------------------------- images


def crop_randomly(
    images: Float[Tensor, "image 3 64 64"], smallest: float, generator: torch.Generator
) -> Float[Tensor, "image 3 64 64"]:
    """Cuts `smallest` .. 1 of the area with sides within 3:4, and enlarges it bilinearly."""
    count = len(images)
    uniform = partial(torch.rand, count, generator=generator)
    area = smallest + (1 - smallest) * uniform()
    aspect = torch.exp((2 * uniform() - 1) * math.log(4 / 3) / 2)
    width, height = (area.sqrt() * aspect).clamp(max=1), (area.sqrt() / aspect).clamp(max=1)
    zero = torch.zeros(count)
    x, y = (2 * uniform() - 1) * (1 - width), (2 * uniform() - 1) * (1 - height)
    theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False).to(images.device)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def jitter_colours(
    images: Float[Tensor, "image 3 64 64"], strength: float, generator: torch.Generator
) -> Float[Tensor, "image 3 64 64"]:
    """Brightness, contrast and saturation by factors 1 ± strength; values 0 .. 1 in and out."""
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    images = (images * brightness).clamp(0, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = images.mean(1, keepdim=True)
    return (grey + saturation * (images - grey)).clamp(0, 1)


def normalise(images: Float[Tensor, "image 3 64 64"]) -> Float[Tensor, "image 3 64 64"]:
    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    return (images - mean.view(3, 1, 1).to(images)) / std.view(3, 1, 1).to(images)


# ---------------------------------------------------------------- captions


def write_captions(
    labels: Labels, digit_only: Bool[Tensor, "image"]
) -> tuple[Int[Tensor, "image token"], Bool[Tensor, "image caption"]]:
    """A caption a scene as word ids, and which captions are true of which scenes."""
    ids = torch.zeros(len(labels), CAPTION_TOKENS, dtype=torch.long)
    for row, (digit, colour, ground), short in zip(ids, labels.tolist(), digit_only.tolist(), strict=True):
        number, name = DIGIT_WORDS[digit], tuple(COLOURS)[colour]
        words = ["a", "large", number] if short else ["a", "large", name, number, "on", GROUNDS[ground]]
        row[: len(words) + 1] = torch.tensor([WORDS.index(word) for word in [*words, "<end>"]])
    same = labels[:, None] == labels[None]  # scene, caption, label
    return ids, same[..., 0] & (digit_only[None] | same.all(-1))


def contrastive_loss(
    image: Float[Tensor, "image width"],
    text: Float[Tensor, "caption width"],
    scale: Float[Tensor, ""],
    true: Bool[Tensor, "image caption"],
) -> Float[Tensor, ""]:
    """CLIP's symmetric cross-entropy; captions that are true of one scene share its target."""
    logits = scale * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    target = true.to(logits)
    rows = functional.cross_entropy(logits, target / target.sum(1, keepdim=True))
    columns = functional.cross_entropy(logits.T, target.T / target.T.sum(1, keepdim=True))
    return (rows + columns) / 2


# ---------------------------------------------------------------- training


def batches(seed: int, stage: Stage, number: int, workers: int) -> Iterator[tuple[Tensor, Labels]]:
    scenes = Scenes(TRAIN_SEED * (number + 1) + seed, "train", stage.samples, stage.max_extras)
    return iter(DataLoader(scenes, batch_size=BATCH, num_workers=workers, drop_last=True))


def build_optimizer(model: CLIP) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))


def train_stage(model: CLIP, stage: Stage, number: int, seed: int, workers: int, device: str) -> None:
    generator = torch.Generator().manual_seed(seed * 10 + number)
    optimizer = build_optimizer(model)
    steps, started = stage.samples // BATCH, time.monotonic()
    for step, (images, labels) in enumerate(batches(seed, stage, number, workers)):
        progress = max(0, step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
        rate = LR * min(1, (step + 1) / WARMUP_STEPS) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        digit_only = torch.rand(BATCH, generator=generator) < stage.digit_only
        captions, true = write_captions(labels, digit_only)
        pixels = images.to(device).float() / 255
        pixels = jitter_colours(crop_randomly(pixels, stage.smallest_crop, generator), JITTER, generator)
        tokens = project_tokens(model, normalise(pixels))
        text, scale, true = model.encode_text(captions.to(device)), model.logit_scale.exp(), true.to(device)
        of_class = contrastive_loss(tokens[:, 0], text, scale, true)
        of_patches = contrastive_loss(tokens[:, 1:].mean(1), text, scale, true)
        optimizer.zero_grad()
        ((of_class + of_patches) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 50 == 49:
            seconds = time.monotonic() - started
            left = seconds / (step + 1) * (steps - step - 1)
            print(
                f"stage {number}  step {step + 1}/{steps}  class {of_class:.3f}  patches {of_patches:.3f}"
                f"  {seconds:.0f} s, {left:.0f} s left",
                flush=True,
            )


# ---------------------------------------------------------------- evaluation


@torch.inference_mode()
def probe_features(model: CLIP, split: Split, count: int, device: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Class token, mean patch and raw pixels of scenes that no stage has drawn, and their digits."""
    parts: dict[str, list[np.ndarray]] = {"class": [], "patches": [], "pixels": []}
    digits = []
    for images, labels in DataLoader(Scenes(PROBE_SEED, split, count, 2), batch_size=250):
        pixels = images.to(device).float() / 255
        tokens = functional.normalize(project_tokens(model, normalise(pixels)), dim=-1).cpu()
        parts["class"].append(tokens[:, 0].numpy())
        parts["patches"].append(tokens[:, 1:].mean(1).numpy())
        parts["pixels"].append(pixels.flatten(1).cpu().numpy())
        digits.append(labels[:, 0].numpy())
    return {name: np.concatenate(rows) for name, rows in parts.items()}, np.concatenate(digits)


def evaluate(model: CLIP, count: int, device: str) -> dict[str, float]:
    """Percent right on validation scenes, by 20 neighbours and a linear probe; raw pixels are the floor."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model.eval()
    train, train_digits = probe_features(model, "train", count, device)
    val, val_digits = probe_features(model, "val", count, device)
    numbers = {}
    for name in train:
        neighbours = KNeighborsClassifier(20, metric="cosine", weights="distance")
        # strong shrinkage is what pixels want: 12,288 of them against 5,000 scenes
        strength, iterations = (1e-4, 100) if name == "pixels" else (0.1, 1000)
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=iterations))
        for probe, classifier in (("knn", neighbours), ("linear", linear)):
            classifier.fit(train[name], train_digits)
            numbers[f"{name} {probe}"] = round(100 * classifier.score(val[name], val_digits), 2)
    return numbers


# ---------------------------------------------------------------- the file


def save_image_tower(
    model: CLIP, path: Path, stages: list[Stage], seed: int, seconds: float, numbers: dict[str, float]
) -> None:
    """Writes the image tower under open_clip's names, with all that is needed to rebuild and to judge it."""
    config = {
        "image_px": SCENE_PX, "patch_px": 8, "width": 128, "layers": 4, "heads": 4, "embed_dim": 128,
        "mlp_ratio": 4.0, "quick_gelu": True,
        "mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD),
    }  # fmt: skip
    training = {
        "script": "examples/train_demo_teacher.py", "seed": seed,
        "stages": [asdict(stage) for stage in stages],
        "batch": BATCH, "lr": LR, "weight_decay": WEIGHT_DECAY, "jitter": JITTER, "seconds": round(seconds),
        "samples": sum(stage.samples for stage in stages), "percent_right": numbers,
    }  # fmt: skip
    tower = {name: value for name, value in model.state_dict().items() if name.startswith("visual.")}
    metadata = {"config": json.dumps(config), "training": json.dumps(training)}
    save_file({name: value.float().cpu().contiguous() for name, value in tower.items()}, path, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's teacher.")
    parser.add_argument("--out", type=Path, default=Path("teacher.safetensors"))
    parser.add_argument("--seed", type=int, default=1, help="0 .. 999; other seeds see other scenes")
    parser.add_argument("--probe-scenes", type=int, default=5000, help="of train and of val")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the recipe's scenes, to try it out")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    model, started = build_clip().to(arguments.device), time.monotonic()
    stages = [replace(stage, samples=round(stage.samples * arguments.fraction)) for stage in STAGES]
    for number, stage in enumerate(stages):
        if number > 0:
            restart_text_tower(model)
        train_stage(model, stage, number, arguments.seed, arguments.workers, arguments.device)
    seconds = time.monotonic() - started
    save = partial(save_image_tower, model, arguments.out, stages, arguments.seed, seconds)
    save({})  # the probes may yet be interrupted
    numbers = evaluate(model, arguments.probe_scenes, arguments.device)
    save(numbers)
    print(f"trained in {seconds:.0f} s, wrote {arguments.out}")
    for name, percent in numbers.items():
        print(f"  {name:16} {percent:6.2f} %")


if __name__ == "__main__":
    main()
