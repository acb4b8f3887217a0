"""Shares of many classes as a strip of colours: a row for everybody who is judged, a cell for each class."""

import base64
import io
from collections.abc import Sequence

from caev2.report.drawing.markup import Html, joined, tag

Rows = Sequence[tuple[str, Sequence[float | None]]]
WORDY = 20
"""Classes that have a name and a number each; of more there is a picture."""
_COLOUR = (0, 114, 178)  # what style.css calls heat
_MOST = 1000  # classes: more make a page of nothing else


def heat_strip(rows: Rows, classes: Sequence[str], what: str) -> Html | None:
    """A table whose cells are as dark as the share is high, and say it in letters where there is room.

    Args:
        rows: Who is judged, and the share of each class, 0 to 1; none where a class has no images.
        classes: Their names.
        what: What the shares are.
    """
    if not rows or not classes or len(classes) > _MOST:
        return None
    kind = "strip" if len(classes) <= WORDY else "strip fine"
    body = _cells(rows, classes) if len(classes) <= WORDY else _bands(rows, classes, what)
    content = tag("table", tag("caption", what), body, class_=kind)
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=what)


def _cells(rows: Rows, classes: Sequence[str]) -> Html:
    head = tag("tr", tag("td"), [tag("th", name, scope="col", title=name) for name in classes])
    lines = [
        tag("tr", tag("th", who, scope="row"), [_cell(*one) for one in zip(shares, classes, strict=False)])
        for who, shares in rows
    ]
    return joined([tag("thead", head), tag("tbody", lines)])


def _cell(share: float | None, name: str) -> Html:
    if share is None:
        return tag("td", "–", title=f"{name}: no images")
    percent, level = 100 * share, min(int(share * 10), 9)
    return tag("td", f"{percent:.0f}", class_=f"heat heat-{level}", title=f"{name}: {percent:.0f} %")


def _bands(rows: Rows, classes: Sequence[str], what: str) -> Html:
    """Of many classes a picture a row, a pixel a class: a thousand cells would weigh more than all else."""
    lines = []
    for who, shares in rows:
        known = [share for share in shares if share is not None]
        reach = f", {100 * min(known):.0f} to {100 * max(known):.0f} %" if known else ""
        source = f"data:image/png;base64,{base64.b64encode(_pixels(shares)).decode()}"
        about = f"{what}, {who}: {len(classes):,} classes{reach}"
        lines.append(tag("tr", tag("th", who, scope="row"), tag("td", tag("img", src=source, alt=about, title=about))))
    return tag("tbody", lines)


def _pixels(shares: Sequence[float | None]) -> bytes:
    """A line of one colour, as opaque as the shares are high."""
    from PIL import Image

    line = Image.new("RGBA", (len(shares), 1))
    line.putdata([(*_COLOUR, 0 if share is None else round(255 * (0.05 + 0.95 * share))) for share in shares])
    written = io.BytesIO()
    line.save(written, "PNG", optimize=True)
    return written.getvalue()
