"""Pictures that lie beside runs, within the page."""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.files import Gap
from caev2.report.reading.runs import RunFolder
from caev2.report.sections.section import Section

SHOW = "caev2 show RUN IMAGE --out RUN/pictures"
_WIDEST_PX = 1600
_MOST_BYTES = 900_000  # of one picture; larger ones become smaller, so that a page of ten stays below 10 MB
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
    for run in runs:
        shown = [embedded(path, _caption(path)) for path in _in_order(run.pictures)[:_MOST_PICTURES]]
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


def embedded(path: Path, caption: str) -> Html | None:
    """A picture with its caption, as large as it may be; none: it is damaged."""
    found = _read(path)
    if found is None:
        return None
    kind, data, (width, height) = found
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = tag("img", src=source, alt=caption, width=width, height=height)
    return tag(
        "figure", image, tag("figcaption", caption), class_="picture" if width > 1.2 * height else "picture tall"
    )


def _read(path: Path) -> tuple[str, bytes, tuple[int, int]] | None:
    """Kind, bytes and size of a picture, made smaller if it is large."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            data = path.read_bytes()
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                image.load()
                if len(data) <= _MOST_BYTES and image.width <= _WIDEST_PX:
                    return "png", data, image.size
                return _smaller(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _smaller(image) -> tuple[str, bytes, tuple[int, int]]:
    """On white, within the widest that is shown; as PNG if that is small enough, else as JPEG."""
    from PIL import Image

    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    flat.thumbnail((_WIDEST_PX, 4 * _WIDEST_PX), Image.Resampling.LANCZOS)
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 88}), ("jpeg", {"quality": 60})):
        written = io.BytesIO()
        flat.save(written, kind.upper(), **options)
        if len(written.getvalue()) <= _MOST_BYTES:
            break
    return kind, written.getvalue(), flat.size
