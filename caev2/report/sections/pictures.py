"""Pictures that lie beside runs, within the page."""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.files import Gap
from caev2.report.reading.runs import RunFolder
from caev2.report.sections.section import Section

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = tuple[str, bytes, tuple[int, int]]
"""Kind, bytes, and width and height."""
SHOW = "caev2 show RUN IMAGE --out RUN/pictures"
_WIDTHS_PX = (1600, 1100, 760, 480)
"""How wide a picture may be, and how wide it becomes where it would take too many bytes."""
ALL_BYTES = 5_000_000
"""Of all pictures of runs together, and of all of grids half as much: base64 adds a third, and a page has 10 MB."""
_MOST_PICTURES = 24  # of a run
_DRAWN = ("loss", "accuracy")
_CAPTIONS = {
    "patches": "Patch latents as colours: principal components, one basis for all columns",
    "patches-scenes": "Patch latents of scenes as colours, one basis for teacher and student",
    "patches-photographs": "Patch latents of photographs as colours; nobody was trained on them",
    "attention": "Where the class token looks in the last block: mean and every head",
    "similarity": "How like one patch all others are",
    "neighbours": "Nearest images by the class token",
    "loss": "Loss and cosines over the steps",
    "accuracy": "Every evaluation of everybody",
}


def pictures_section(runs: Sequence[RunFolder]) -> Section:
    """All pictures of all runs."""
    body: list[Html] = []
    gaps = []
    most_bytes = share_of(sum(min(len(run.pictures), _MOST_PICTURES) for run in runs))
    for run in runs:
        shown = [embedded(path, _caption(path), most_bytes) for path in _in_order(run.pictures)[:_MOST_PICTURES]]
        known = [one for one in shown if one is not None]
        if len(known) < len(shown):
            gaps.append(Gap(what=f"{len(shown) - len(known)} pictures of {run.name} are damaged.", command=SHOW))
        if len(run.pictures) > _MOST_PICTURES:
            gaps.append(Gap(what=f"{len(run.pictures) - _MOST_PICTURES} more pictures of {run.name} are left out."))
        if known:
            body += [tag("h3", run.name)] if len(runs) > 1 else []
            body.append(tag("div", known, class_="gallery"))
    if not body and not gaps:
        gaps.append(Gap(what="No pictures lie in the run or in its folder pictures.", command=SHOW))
    return Section(
        id="pictures",
        title="Pictures",
        about="What patches mean to teacher and student: equal colours are equal directions.",
        body=tuple(body),
        gaps=tuple(gaps),
    )


def _in_order(pictures: Sequence[Path]) -> list[Path]:
    """Those first that the page does not draw itself."""
    return sorted(pictures, key=lambda path: path.stem in _DRAWN)


def _caption(path: Path) -> str:
    return _CAPTIONS.get(path.stem, path.stem)


def share_of(pictures: int, total: int = ALL_BYTES) -> int:
    """How many bytes each of so many pictures may take."""
    return total // max(pictures, 6)


def embedded(path: Path, caption: str, most_bytes: int) -> Html | None:
    """A picture with its caption, made smaller if it is large; none: it is damaged."""
    found = _read(path, most_bytes)
    if found is None:
        return None
    kind, data, (width, height) = found
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = tag("img", src=source, alt=caption, width=width, height=height)
    return tag(
        "figure", image, tag("figcaption", caption), class_="picture" if width > 1.2 * height else "picture tall"
    )


def _read(path: Path, most_bytes: int) -> Picture | None:
    """Kind, bytes and size of a picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            data = path.read_bytes()
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                image.load()
                if len(data) <= most_bytes and image.width <= _WIDTHS_PX[0]:
                    return "png", data, image.size
                return _smaller(image.convert("RGBA"), most_bytes)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _smaller(image: "Image", most_bytes: int) -> Picture:
    """On white; as PNG if that is small enough, else as JPEG, else narrower."""
    from PIL import Image

    whole = Image.new("RGB", image.size, "white")
    whole.paste(image, mask=image.getchannel("A"))
    for width in _WIDTHS_PX:
        whole.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
            written = io.BytesIO()
            whole.save(written, kind.upper(), **options)
            if len(written.getvalue()) <= most_bytes:
                return kind, written.getvalue(), whole.size
    return kind, written.getvalue(), whole.size
