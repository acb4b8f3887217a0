"""Shares of many classes as a strip of colours: a row for everybody who is judged, a cell for each class."""

from collections.abc import Sequence

from caev2.report.drawing.markup import Html, tag

_MOST = 1000  # classes: more make a page of nothing else


def heat_strip(rows: Sequence[tuple[str, Sequence[float | None]]], classes: Sequence[str], what: str) -> Html | None:
    """A table whose cells are as dark as the share is high, and say it in letters where there is room.

    Args:
        rows: Who is judged, and the share of each class, 0 to 1; none where a class has no images.
        classes: Their names.
        what: What the shares are.
    """
    if not rows or not classes or len(classes) > _MOST:
        return None
    wordy = len(classes) <= 20
    head = tag("tr", tag("td"), [tag("th", name, scope="col", title=name) for name in classes] if wordy else None)
    lines = [
        tag(
            "tr",
            tag("th", who, scope="row"),
            [_cell(share, name, wordy) for share, name in zip(shares, classes, strict=False)],
        )
        for who, shares in rows
    ]
    kind = "strip" if wordy else "strip fine"
    content = tag(
        "table", tag("caption", what), tag("thead", head) if wordy else None, tag("tbody", lines), class_=kind
    )
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=what)


def _cell(share: float | None, name: str, wordy: bool) -> Html:
    if share is None:
        return tag("td", "–" if wordy else None, title=f"{name}: no images")
    percent = 100 * share
    level = min(int(share * 10), 9)
    return tag("td", f"{percent:.0f}" if wordy else None, class_=f"heat heat-{level}", title=f"{name}: {percent:.0f} %")
