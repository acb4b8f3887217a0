"""The page in a real browser: on a desk, on a phone, in the dark and in print."""

import os
import re

import pytest

from caev2.report.run import report
from tests.report.browser import REQUIRED, Browser, browsing, find_browser
from tests.report.made_up import make_run

pytestmark = pytest.mark.slow

SECTIONS = ["summary", "curves", "probes", "ablations", "pictures", "store", "provenance", "environment", "reproduce"]
PHONE_PX = 375


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    report([made / "scenes", made / "study"], path)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of a run that was judged by a thousand classes."""
    folder = tmp_path_factory.mktemp("many")
    make_run(folder / "large" / "run", classes=tuple(f"class {number}" for number in range(1000)))
    report([folder / "large"], folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_browser()
    if program is None:
        missing = "there is no Chromium. Debian: apt-get install chromium"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED} is 1, and {missing}")
        pytest.skip(missing)
    with browsing(program, tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


def complaints(browser: Browser) -> list:
    """What the browser says of a page it does not like."""
    entries = [event["entry"] for event in browser.happened("Log.entryAdded")]
    said = [entry["text"] for entry in entries if entry["level"] in ("error", "warning")]
    spoken = [event for event in browser.happened("Runtime.consoleAPICalled") if event["type"] in ("error", "warning")]
    return [*said, *spoken, *browser.happened("Runtime.exceptionThrown")]


def fetched(browser: Browser) -> list[str]:
    """Every address that was asked for."""
    return [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]


def test_a_page_that_complains_and_asks_a_network_would_be_seen(browser, tmp_path):
    (tmp_path / "bad.html").write_text('<img src="http://127.0.0.1:9/"><script>console.error("no")</script>')
    browser.open(tmp_path / "bad.html")
    assert "http://127.0.0.1:9/" in fetched(browser)
    assert len(complaints(browser)) >= 2


def test_every_section_is_seen_nothing_complains_and_no_request_leaves(browser, page):
    browser.open(page)
    shown = browser.ask(
        "Object.fromEntries([...document.querySelectorAll('section')].map(one => [one.id,"
        " one.offsetHeight > 80 && !one.querySelector('.none')"
        " && [...one.querySelectorAll('svg, table, img, pre, dl')].some(each => each.getBoundingClientRect().height > 10)]))"
    )
    assert shown == dict.fromkeys(SECTIONS, True)
    assert browser.ask("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert complaints(browser) == []
    asked = fetched(browser)
    assert page.resolve().as_uri() in asked
    assert [url for url in asked if url != page.resolve().as_uri() and not url.startswith("data:")] == []


@pytest.mark.parametrize("width", [PHONE_PX, 320, 768, 1200])
def test_the_page_is_never_wider_than_the_screen(browser, page, width):
    browser.open(page, width=width, height=800)
    assert browser.ask("document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.ask("innerWidth") == width
    # what is too wide scrolls in a box of its own, and each drawing is whole
    outside = browser.ask(
        "[...document.querySelectorAll('svg, img, .box, .tile, pre, figure')].filter(one => {"
        " const box = one.getBoundingClientRect(); return box.width && (box.left < 0 || box.right > innerWidth + 0.5)"
        "}).length"
    )
    assert outside == 0


@pytest.mark.parametrize("width", [PHONE_PX, 718])
def test_strips_of_a_thousand_classes_fit_on_screen_and_paper(browser, many, width):
    browser.open(many, width=width)
    browser.call("Emulation.setEmulatedMedia", media="print" if width == 718 else "")  # 718 px: A4 within its margins
    try:
        assert browser.ask("document.querySelectorAll('.strip.fine img').length") >= 8
        assert browser.ask("[...document.querySelectorAll('.strip.fine')].every(one => one.offsetWidth <= innerWidth)")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_letters_of_drawings_are_large_enough_on_a_phone_and_within_their_drawing(browser, page):
    browser.open(page, width=PHONE_PX, height=800)
    sizes = browser.ask(
        "[...document.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height).filter(one => one)"
    )
    assert min(sizes) > 9
    cut = browser.ask(
        "[...document.querySelectorAll('svg text')].filter(one => { const box = one.getBoundingClientRect(),"
        " frame = one.ownerSVGElement.getBoundingClientRect();"
        " return box.left < frame.left - 6 || box.right > frame.right + 6 }).map(one => one.textContent)"
    )
    assert cut == []


def test_hashes_of_runs_can_be_read_on_a_phone(browser, page):
    browser.open(page, width=PHONE_PX, height=800)
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    hidden = browser.ask(
        "[...document.querySelectorAll('#provenance details .scroll')].map(box => { box.scrollLeft = 1e5;"
        " const frame = box.getBoundingClientRect(), cells = [...box.querySelectorAll('tbody tr:first-child > *')];"
        " const stays = cells[0].getBoundingClientRect();"
        " return Math.max(0, stays.right - frame.left) / frame.width })"
    )
    assert hidden
    assert max(hidden) < 0.5, "what stays at the left leaves room for the rest"


def test_the_navigation_leads_to_sections_that_can_be_seen(browser, page):
    browser.open(page, width=PHONE_PX, height=800)
    for name in SECTIONS[:-1]:  # the last one may be too short to be brought to the top
        browser.ask(f"document.querySelector('nav a[href=\"#{name}\"]').click()")
        top = browser.ask(f"document.getElementById('{name}').getBoundingClientRect().top")
        assert 0 <= top < 400, name


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_can_be_told_from_paper_as_wcag_asks(browser, page, dark):
    browser.open(page, dark=dark)
    paper = luminance(browser.ask("getComputedStyle(document.body).backgroundColor"))
    assert (paper < 0.1) is dark
    for selector in ("body", ".about", ".images", "nav a", ".verdict.worse", "td small", ".kicker"):
        ink = luminance(browser.ask(f"getComputedStyle(document.querySelector('{selector}')).color"))
        assert contrast(ink, paper) >= 4.5, selector


def over(colour: str, paper: str) -> str:
    """A colour that may be seen through, on paper."""
    *channels, opacity = [float(part) for part in re.findall(r"[\d.]+", colour)] + ([] if "rgba" in colour else [1.0])
    below = [float(part) for part in re.findall(r"[\d.]+", paper)]
    return " ".join(
        str(round(top * opacity + under * (1 - opacity))) for top, under in zip(channels, below, strict=False)
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_numbers_in_cells_of_every_shade_can_be_read(browser, page, dark):
    browser.open(page, dark=dark)
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    for level in range(10):
        cell = browser.ask(
            f"(() => {{ const one = document.querySelector('td.heat'); one.className = 'heat heat-{level}';"
            " const style = getComputedStyle(one); return [style.color, style.backgroundColor] })()"
        )
        assert contrast(luminance(cell[0]), luminance(over(cell[1], paper))) >= 4.5, level


def test_it_prints_on_several_light_pages_without_navigation_and_with_whole_drawings(browser, page):
    browser.open(page, dark=True)
    printed = browser.print()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 1
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        whole = "[...document.querySelectorAll('figure, .box, .tile')].every(one => getComputedStyle(one).breakInside == 'avoid')"
        assert browser.ask(whole)
        hidden = "[...document.querySelectorAll('details svg, details td, details pre')].filter(one => !one.getBoundingClientRect().height).length"
        assert browser.ask(hidden) == 0
        assert browser.ask("[...document.querySelectorAll('summary')].every(one => one.offsetHeight > 0)")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
