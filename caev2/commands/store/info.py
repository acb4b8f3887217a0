"""`caev2 store info`: a store on one screen."""

from typing import Any

import click

from caev2.commands.invocation import STORE, example, json_option, list_failures
from caev2.store.remote.paths import StorePath


@click.command("info", epilog=example("store info photographs.caev2"))
@click.argument("store", type=STORE)
@json_option
def store_info(store: StorePath, as_json: bool) -> None:
    """Describe a store on one screen."""
    from caev2.store.describe import describe_store
    from caev2.store.disk import say_bytes
    from caev2.store.reader import Store
    from caev2.terminal import print_facts, print_json

    described = describe_store(Store(store, allow_unsealed=True))
    if as_json:
        print_json(described)
        return
    targets, failures = described.pop("targets"), described.pop("failures")
    view_px = described["view_settings"]["size_px"]
    described["undecodable"] = list_failures(tuple((key, reason) for key, reason in failures))
    described["view_settings"] = ", ".join(f"{name} {value}" for name, value in described["view_settings"].items())
    print_facts("Store", described)
    for name, target in targets.items():
        teacher = target.pop("teacher")
        target["bytes"] = say_bytes(target["bytes"])
        target |= _say_quality(target.pop("quality"))
        target["teacher"] = f"{teacher['name']}, {teacher['precision']}, sha256 {teacher['sha256'][:16]}..."
        target["teacher saw"] = _say_seen(teacher.get("image_px"), view_px, target.pop("from_crops"))
        print_facts(f"Target {name}", target)


def _say_seen(teacher_px: int | None, view_px: int, from_crops: bool) -> str:
    """What the teacher was shown of a view."""
    if teacher_px in (None, view_px):
        return f"the crops of {view_px} pixels"
    return f"crops of {view_px} pixels resized to {teacher_px}" if from_crops else f"the boxes at {teacher_px} pixels"


def _say_quality(quality: dict[str, Any] | None) -> dict[str, str]:
    """One line for each kind of token; none where nothing is lost."""
    return {
        kind.replace("_", " "): (
            f"relative error {figures['relative_error']:.2g}, centred cosine {figures['centred_cosine_mean']:.4f} "
            f"(1st percentile {figures['centred_cosine_p1']:.4f}), on {figures['tokens']:,} tokens held out"
        )
        for kind, figures in (quality or {}).items()
        if figures is not None and figures["relative_error"] is not None
    }
