"""What every drawing has: a size, a title and a description for those who do not see it, a caption for those who do."""

from caev2.report.drawing.markup import Html, escaped, tag

WIDTH = 400
"""Of a drawing that stands beside others, in its own units: shown as wide as a phone, letters are not too small."""

LETTER_WIDTH = 7.6
"""Of a letter of a name, about: no font is asked."""


def drawing(*marks: str | None, width: float | int, height: float | int, title: str, about: str) -> Html:
    """An SVG that fills its place and keeps its shape.

    Args:
        marks: What it shows.
        width: Its own units.
        height: Likewise.
        title: A few words.
        about: What one would see, in a sentence with the numbers that matter.
    """
    head = [tag("title", title), tag("desc", about)]
    return tag(
        "svg", *head, *marks, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=f"{title}. {about}",
        preserveAspectRatio="xMinYMin meet",
    )  # fmt: skip


def figure(content: Html, title: str, note: str | None = None, *, class_: str = "chart") -> Html:
    """A drawing with its heading, and a line below it."""
    caption = tag("figcaption", tag("strong", title), None if note is None else tag("span", note))
    return tag("figure", caption, content, class_=class_)


def letters(x: float | int, y: float | int, text: str, *, class_: str = "tick", anchor: str = "start") -> Html:
    """A short text at a place."""
    return tag("text", escaped(text), x=x, y=y, class_=class_, text_anchor=anchor)
