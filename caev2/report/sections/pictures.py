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
_LEAST_BYTES = 60_000  # a picture that has less says nothing
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


class Room:
    """How many bytes pictures may still take, and what one of them should.

    Args:
        pictures: How many there may be.
        total: For all of them.
    """

    def __init__(self, pictures: int, total: int = ALL_BYTES):
        self._left = total
        self.share = max(total // max(pictures, 6), _LEAST_BYTES)

    def takes(self, size: int) -> bool:
        """Whether so many bytes are left; if so, they are taken."""
        if size > self._left:
            return False
        self._left -= size
        return True


def pictures_section(runs: Sequence[RunFolder]) -> Section:
    """All pictures of all runs that there is room for, of each run its first."""
    body: list[Html] = []
    gaps: list[Gap] = []
    wanted = {run.name: [path for path in run.pictures if not _is_drawn(path, run)] for run in runs}
    most = max(1, min(_MOST_PICTURES, ALL_BYTES // _LEAST_BYTES // max(len(runs), 1)))
    room = Room(sum(min(len(paths), most) for paths in wanted.values()))
    for name, paths in wanted.items():
        shown, missing = gallery([(path, _caption(path)) for path in paths], room, most, f"of {name}")
        gaps += missing
        if shown is not None:
            body += [tag("h3", name), shown] if len(runs) > 1 else [shown]
    if not any(run.pictures for run in runs):
        gaps.append(Gap(what="No pictures lie in the run or in its folder pictures.", command=SHOW))
    return Section(
        id="pictures",
        title="Pictures",
        about="What patches mean to teacher and student: equal colours are equal directions.",
        body=tuple(body),
        gaps=tuple(gaps),
    )


def gallery(pictures: Sequence[tuple[Path, str]], room: Room, most: int, whose: str) -> tuple[Html | None, list[Gap]]:
    """Pictures beside each other as long as there is room, and how many are not among them, and why.

    Args:
        pictures: Files and captions.
        room: What is left of the page; less, afterwards.
        most: How many there may be.
        whose: They are: `of base`.
    """
    shown, damaged, left = [], 0, max(len(pictures) - most, 0)
    for path, caption in pictures[:most]:
        found = _read(path, room.share)
        damaged += found is None
        if found is not None and room.takes(len(found[1])):
            shown.append(_embed(found, caption))
        elif found is not None:
            left += 1
    gaps = (
        [Gap(what=f"{damaged} picture{'s' if damaged > 1 else ''} {whose} damaged.", command=SHOW)] if damaged else []
    )
    if left:
        gaps.append(Gap(what=f"{left} more pictures {whose} are left out: the page would be too large."))
    return (tag("div", shown, class_="gallery") if shown else None), gaps


def _is_drawn(path: Path, run: RunFolder) -> bool:
    """Whether the page draws the same itself."""
    return (path.stem == "loss" and bool(run.steps)) or (path.stem == "accuracy" and bool(run.results))


def _caption(path: Path) -> str:
    return _CAPTIONS.get(path.stem, path.stem)


def _embed(found: Picture, caption: str) -> Html:
    kind, data, (width, height) = found
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = tag("img", src=source, alt=caption, width=width, height=height)
    return tag(
        "figure", image, tag("figcaption", caption), class_="picture" if width > 1.2 * height else "picture tall"
    )


def _read(path: Path, most_bytes: int) -> Picture | None:
    """Kind, bytes and size of a picture, made smaller if it is large; none: it is damaged."""
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
    for width in dict.fromkeys(min(one, image.width) for one in _WIDTHS_PX):
        whole.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
            written = io.BytesIO()
            whole.save(written, kind.upper(), **options)
            if len(written.getvalue()) <= most_bytes:
                return kind, written.getvalue(), whole.size
    return kind, written.getvalue(), whole.size
