"""The README of exported weights: what they are, where they come from, what they are worth, how they are loaded."""

import json
from collections.abc import Mapping
from typing import Any

from caev2.export.exportable import Exportable

_HEAD = """---
library_name: timm
pipeline_tag: {task}
tags:
- timm
- caev2
- masked-image-modeling
---
"""
_CITATION = """```bibtex
@article{zhang2023caev2,
  title   = {CAE v2: Context Autoencoder with CLIP Latent Alignment},
  author  = {Zhang, Xinyu and others},
  journal = {Transactions on Machine Learning Research},
  year    = {2023},
  url     = {https://openreview.net/forum?id=f36LaK7M0F}
}
```"""
_RECIPE_ROWS = {
    "epochs": ("epochs",),
    "images of a step": ("batch_size",),
    "masked patches": ("mask", "count"),
    "mask": ("mask", "kind"),
    "peak learning rate": ("optimizer", "lr"),
    "weight decay": ("optimizer", "weight_decay"),
    "drop path": ("model", "drop_path"),
    "blocks of the regressor": ("model", "regressor_depth"),
    "layer decay": ("optimizer", "layer_decay"),
    "augmentation": ("augmentation", "auto_augment"),
    "precision": ("precision",),
    "seed": ("seed",),
}
"""What of a recipe is told in words; all of it follows as JSON."""


def model_card(exportable: Exportable) -> str:
    """The text of README.md; it holds no path, host or time."""
    parts = [_what(exportable), _loading(exportable), _training(exportable), _numbers(exportable)]
    parts += [_origin(exportable), _LIMITS, f"## Citation\n\nThe method is CAE v2's:\n\n{_CITATION}"]
    task = "image-classification" if exportable.timm.output == "logits" else "image-feature-extraction"
    return _HEAD.format(task=task) + "\n" + "\n\n".join(part for part in parts if part) + "\n"


def _what(exportable: Exportable) -> str:
    size, model = exportable.settings, exportable.timm
    kind = f"A classifier of {model.arguments['num_classes']} classes" if model.output == "logits" else "The encoder"
    return (
        f"# CAE v2 {size.width}x{size.depth}, {size.patch_px}-pixel patches, {size.image_px} pixels\n\n"
        f"{kind} of CAE v2 (Context Autoencoder with CLIP Latent Alignment), a vision transformer of width "
        f"{size.width}, {size.depth} blocks and {size.heads} heads. It is timm's `{model.architecture}` with the "
        "arguments in `config.json`: fixed sine-cosine positions are its `pos_embed`, and keys have no bias."
    )


def _loading(exportable: Exportable) -> str:
    lines = ["import timm, torch", "", 'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()']
    lines += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"]
    if exportable.timm.output == "logits":
        lines += ["logits = model(transform(image)[None])"]
    else:
        lines += [
            "tokens = model.forward_features(transform(image)[None])  # class token first, after the final norm",
            "class_token, patch_mean = tokens[:, 0], tokens[:, 1:].mean(1)",
        ]
    code = "\n".join(lines)
    model = exportable.timm
    return (
        f"## Loading\n\n```python\n{code}\n```\n\nFOLDER is where this file lies; on the hub, `hf-hub:NAME` instead. "
        f"The transform makes the short side {model.resize_px} pixels and cuts {model.image_px} out of the centre. It "
        "does not apply the EXIF orientation of an image, which caev2's own evaluation does unless told otherwise: "
        "`PIL.ImageOps.exif_transpose(image)` first gives the same pixels."
    )


def _training(exportable: Exportable) -> str:
    recipe, target = exportable.recipe, exportable.provenance.get("target") or {}
    rows = {name: _find(recipe, place) for name, place in _RECIPE_ROWS.items()}
    if "epochs" not in recipe:  # of an imported run, only the sizes are known
        rows = {}
    rows["steps done"] = exportable.provenance.get("step") if rows else None
    rows["weights"] = "moving average" if exportable.provenance.get("averaged") else None
    teacher = target.get("teacher") or {}
    rows["teacher"] = teacher.get("name")
    rows["teacher, sha256 of its weights"] = teacher.get("sha256")
    rows["teacher's output"] = target.get("tap")
    rows["crops"] = _crops(exportable.views)
    if exportable.provenance.get("from") == "fine-tuning":
        rows["fine-tuned from"] = (exportable.provenance.get("start") or {}).get("role")
    known = {name: value for name, value in rows.items() if value is not None}
    if not known:
        return "## Training\n\nNot known: the weights were read from a file."
    table = "\n".join(f"| {name} | {value} |" for name, value in known.items())
    text = f"## Training\n\n| | |\n|---|---|\n{table}"
    return text + (f"\n\nThe whole recipe:\n\n```json\n{json.dumps(recipe, indent=1)}\n```" if recipe else "")


def _find(mapping: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    found: Any = mapping
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _crops(views: Mapping[str, Any]) -> str | None:
    if not views:
        return None
    low, high = views.get("scale", (None, None))
    return f"{views.get('size_px')} pixels, {low} to {high} of the area, jitter {views.get('jitter')}"


def _numbers(exportable: Exportable) -> str:
    """The table that `caev2 probe` printed, if it is of these weights."""
    result = exportable.result
    if result is None:
        return "## Numbers\n\nNone were measured on these weights when they were exported."
    subjects = [one for one in result["subjects"] if one["accuracy"]]
    kinds = list(dict.fromkeys(kind for one in subjects for kind in one["accuracy"]))
    lines = ["| features | " + " | ".join([*kinds, "short side", "crop"]) + " |", "|---" * (3 + len(kinds)) + "|"]
    for one in subjects:
        cells = [_say_accuracy(one["accuracy"].get(kind)) for kind in kinds]
        cells += [_say_pixels(one.get("resize_px")), _say_pixels(one.get("crop_px"))]
        lines.append(f"| {one['name']} | " + " | ".join(cells) + " |")
    classes = len(result["classes"])
    frozen = "" if exportable.timm.output == "logits" else " of frozen features (`caev2 probe`)"
    return (
        f"## Numbers\n\nAccuracy{frozen} in percent on {result['val_images']:,} images of {classes} classes, "
        f"with 95 % intervals; images by digest `{result['val_digest']}`. {_say_orientation(result)}\n\n"
        + "\n".join(lines)
    )


def _say_orientation(result: Mapping[str, Any]) -> str:
    applied = result.get("orientation") == "exif"
    return f"The EXIF orientation of an image was {'applied' if applied else 'ignored'}."


def _say_pixels(side: int | None) -> str:
    return "" if side is None else f"{side} pixels"


def _say_accuracy(accuracy: Mapping[str, float] | None) -> str:
    if accuracy is None:
        return ""
    value, low, high = (100 * accuracy[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _origin(exportable: Exportable) -> str:
    names = {
        "fingerprint": "run",
        "checkpoint_sha256": "checkpoint, sha256",
        "file_sha256": "file, sha256",
        "store_fingerprint": "store of targets",
        "store_digest": "store, digest of all files",
    }
    rows = [f"| {said} | `{exportable.provenance[name]}` |" for name, said in names.items() if _said(exportable, name)]
    return "## Origin\n\n| | |\n|---|---|\n" + "\n".join(rows)


def _said(exportable: Exportable, name: str) -> bool:
    return bool(exportable.provenance.get(name))


_LIMITS = """## Limits

Features are those of images prepared as above: another size needs other positions. Whoever publishes these weights says
under which licence; the teacher's and the images' terms may bear on it."""
