"""`caev2 store show`: a store as a picture."""

from pathlib import Path

import click

from caev2.commands.invocation import IMAGES, STORE, example, json_option, print_result
from caev2.store.remote.paths import StorePath
from caev2.store.sources.at_url import ImagesUrl


@click.command("show", epilog=example("store show photographs.caev2 --images photographs"))
@click.argument("store", type=STORE)
@click.option("--images", type=IMAGES, help="What the store was extracted from, unless it keeps its crops.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("store.png"), show_default=True, help="A PNG file."
)
@click.option("--target", default=None, help="Which target; without it, the only one or the first by name.")
@click.option("--count", type=click.IntRange(1, 64), default=6, show_default=True, help="Images.")
@click.option("--views", type=click.IntRange(1), default=2, show_default=True, help="Views of each, from the first on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Other images.")
@json_option
def store_show(
    store: StorePath,
    images: Path | ImagesUrl | None,
    out: Path,
    target: str | None,
    count: int,
    views: int,
    seed: int,
    as_json: bool,
) -> None:
    """Draw crops of a STORE beside the principal components of their targets."""
    from caev2.eval.store_picture import choose_shown, draw_store
    from caev2.store.disk import writing
    from caev2.store.images import open_images
    from caev2.store.pixels.replay import open_crops
    from caev2.store.reader import Store

    opened = Store(store)
    crops = open_crops(opened, None if images is None else open_images(images))
    shown = choose_shown(opened, count, seed)
    target = target or sorted(opened.manifest.spec.targets)[0]
    with writing(out):
        draw_store(opened, crops, target, shown, range(min(views, opened.views)), out)
    teacher_px = opened.manifest.spec.targets[opened.target(target)].teacher.get("image_px")
    facts = {
        "picture": str(out),
        "target": target,
        "teacher_px": teacher_px,
        "images": [opened.keys[image] for image in shown],
    }
    if not as_json:
        facts["images"] = ", ".join(facts["images"])
    print_result(facts, as_json, f"Drew {store}")
