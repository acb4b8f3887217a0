"""What a page says, as a reader of its markup finds it."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from caev2.report.run import report

HOSTILE = '<script>alert("x")</script>'
_VOID = {"br", "hr", "img", "meta"}


class Page(HTMLParser):
    """Elements with their attributes, and the text that is seen; refuses markup that does not nest."""

    def __init__(self, content: bytes):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.by_id: dict[str, str] = {}
        self.codes: list[str] = []
        self.rows_by_id: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._ids: list[str] = []
        self.feed(content.decode())
        assert self._open == []
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in _VOID:
            return
        self._open.append(tag)
        if tag == "section":
            self._ids.append(dict(attrs)["id"] or "")
            self.by_id[self._ids[-1]] = ""
        if tag == "code":
            self.codes.append("")
        if tag == "tr" and self._ids:
            self.rows_by_id.setdefault(self._ids[-1], []).append([])
        if tag in ("th", "td") and self._ids:
            self.rows_by_id[self._ids[-1]][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} ends where another element does"
        if tag == "section":
            self._ids.pop()

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.words.append(data)
        if self._ids:
            self.by_id[self._ids[-1]] += data
        if "code" in self._open:
            self.codes[-1] += data
        if self._ids and {"th", "td"} & set(self._open):
            self.rows_by_id[self._ids[-1]][-1][-1] += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def commands(self) -> list[str]:
        return [code for code in self.codes if code.startswith("caev2 ")]

    def rows(self, section: str) -> list[list[str]]:
        """Of all tables of a section, the text of every cell."""
        return self.rows_by_id.get(section, [])


def page_of(*places: Path, out: Path, **options: Any) -> Page:
    report(places, out, **options)
    return Page(out.read_bytes())
