"""HTML and SVG as values: what is markup says so by its type, and every other text is escaped."""

import html
import re
from collections.abc import Callable, Iterable

_PIECES = re.compile(r"<[^>]*>|[^<]+")
_WORDS = re.compile(r'(?<= )(alt|title|aria-label|content)="([^"]*)"')
"""Attributes that are read by people; others are numbers, places on the page, and pictures."""
_CODE = re.compile(r"`([^`]+)`")
_VOID = {"br", "hr", "img", "meta"}
"""Elements of HTML that have no end."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None | Iterable[str | None]
Attribute = str | int | float | bool | None


def escaped(text: str) -> Html:
    """Text as markup that shows it."""
    return text if isinstance(text, Html) else Html(html.escape(_speakable(text), quote=True))


def _speakable(text: str) -> str:
    """Without halves of characters, which JSON can spell and no file can hold."""
    return text.encode(errors="replace").decode()


def joined(children: Iterable[str | None], between: str = "") -> Html:
    """Several pieces as one; what is none is left out."""
    return Html(escaped(between).join(escaped(child) for child in children if child is not None))


def prose(text: str) -> Html:
    """A text in which what stands between backticks is code."""
    pieces = _CODE.split(text)
    return joined([tag("code", piece) if place % 2 else piece for place, piece in enumerate(pieces)])


def tag(element: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element.

    Args:
        element: Its name.
        children: Texts, which are escaped, and markup; lists of them; none is left out.
        attributes: By name; `class_` is `class` and `stroke_width` is `stroke-width`. None and False: left out. True:
            there, without a value.
    """
    head = element + "".join(_attribute(key, value) for key, value in attributes.items())
    if element in _VOID:
        return Html(f"<{head}>")
    body = joined(child if isinstance(child, str) else joined(child) for child in children if child is not None)
    return Html(f"<{head}>{body}</{element}>")


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = say_number(value) if isinstance(value, int | float) else html.escape(_speakable(value), quote=True)
    return f' {name}="{text}"'


def say_number(value: float | int) -> str:
    """A coordinate: two decimals at most, so that the page stays small and its bytes are the same everywhere."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def shown(markup: Html, change: Callable[[str], str]) -> Html:
    """Markup in which every text that people read was changed, be it between elements or in an attribute.

    Args:
        markup: What `tag` made: `<`, `>` and quotes in texts are escaped.
        change: Of a text as it is seen.
    """

    def say(text: str) -> str:
        return html.escape(change(html.unescape(text)), quote=True)

    def piece(found: re.Match[str]) -> str:
        one = found.group()
        return _WORDS.sub(lambda word: f'{word[1]}="{say(word[2])}"', one) if one[0] == "<" else say(one)

    return Html(_PIECES.sub(piece, markup))
