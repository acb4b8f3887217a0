"""The page: sections in one self-contained HTML file."""

from collections.abc import Sequence
from importlib.resources import files

from caev2.report.drawing.markup import Html, joined, shown, tag
from caev2.report.reading.files import without_folders
from caev2.report.sections.section import Section


def page_of(title: str, subtitle: str, sections: Sequence[Section]) -> bytes:
    """The file: no script, no address, no folder of a machine, nothing that is not in it.

    Args:
        title: Of the page.
        subtitle: A line below it.
        sections: In their order.
    """
    style = files("caev2.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        # nothing may be fetched, whatever a text of the page would like
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        tag("title", without_folders(title)),
        tag("style", Html(style)),
    )
    links = [
        tag("li", tag("a", one.title, href=f"#{one.id}", class_=None if one.is_filled else "empty")) for one in sections
    ]
    body = shown(
        tag(
            "body",
            tag("a", "Skip to the content", href="#content", class_="skip"),
            tag(
                "header",
                tag("p", "caev2 report", class_="kicker"),
                tag("h1", title),
                tag("p", subtitle, class_="about"),
                class_="top",
            ),
            tag("nav", tag("ul", links), aria_label="Sections"),
            tag("main", [one.markup() for one in sections], id="content"),
            tag(
                "footer",
                tag("p", "Made by caev2 report from files alone; on one machine the same files give the same bytes."),
            ),
        ),
        without_folders,
    )
    whole = joined([Html("<!doctype html>\n"), tag("html", head, body, lang="en"), Html("\n")])
    return whole.encode(errors="replace")  # half a surrogate pair is no letter
