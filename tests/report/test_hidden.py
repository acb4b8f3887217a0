"""Nothing of a machine or its owner is on a page, whatever the files hold."""

import dataclasses
import html
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caev2.ablate.outcome import read_outcome, write_outcome
from caev2.eval.result import save_result
from caev2.pretrain.identity import RunIdentity, read_identity
from caev2.report.drawing.markup import Html, shown, tag
from caev2.report.page import page_of
from caev2.report.reading.files import name_of_folder, without_folders
from caev2.report.run import find, report
from caev2.report.sections.section import Section
from caev2.store.manifest import FILE_NAME, Manifest, read_manifest
from tests.report.made_up import make_run, probe_result
from tests.report.reading_pages import Page

HOME, ROOT, USERS = "/home" + "/", "/root" + "/", "/Users" + "/"  # in parts: no file of the project names a folder
ACCOUNT = re.compile(r"(?<!\w)[a-z0-9]+:[a-z0-9]+@[a-z0-9]")

PIECES = st.sampled_from(
    [HOME, ROOT, USERS, "~", "~alice/", "alice", "/", "\\", "C:\\Users\\", " ", "x:", ":", "@", "tok", "host", "https://", "s3://", "file://",
     "u:tok@host", "…", "w.pt", "home", "root", "'", '"', "<", ">", "&", "3/16", "\n", ".", "-", "é", "\ud800", "=", "?", "("]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=9).map("".join) | st.text()

PICTURE = "data:image/png;base64," + "/".join(["", "home", "abc", "def", "gh=="])


def hides(text: str) -> bool:
    """Whether no folder of somebody, no address and no account is in a text."""
    return not (
        re.search(r"(?i)[/\\](home|users)[/\\]+[^\s/\\'\"<>|:;,()]", text)
        or re.search(r"[/\\]root(?![\w.-])", text)
        or re.search(r"(?i)~([a-z_][\w.-]*)?[/\\]", text)
        or "://" in text
        or ACCOUNT.search(text)
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"x:{HOME}bob/w", "…/w"),
        ("~bob/w", "…/w"),
        ("https://u:tok@host.corp/a/b?sig=1#x", "…/b"),
        ("https://host.corp", "…"),
        ("clone u:tok@host it", "clone …@host it"),
        (f"{HOME}al ice/x", "…/x"),
        (f"{HOME}bob", "…"),
        (f"in {HOME}bob/a/b/w.pt is 3/16", "in …/w.pt is 3/16"),
        (f"data{HOME}bob/x", "data…/x"),
        (f"{ROOT}a/b, {ROOT[:-1]} and /rooted", "…/b, … and /rooted"),
        (f"{USERS}bob/a.png", "…/a.png"),
        ("OSError:/data/x/y", "OSError:…/y"),
    ],
)
def test_homes_addresses_and_accounts_go_wherever_they_stand(text, left):
    assert without_folders(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "3/16 of tokens, and/or a/b/c, ~3/16, 4 / 16", "caev2 ablate STUDY g.toml OUT", "STUDY/views-int8 OUT/runs/0e1b",
        "timm:vit_tiny@FILE", "openclip:ViT-B-16-quickgelu/openai", "demo@FILE", "loss.visible_weight=0.0", "1:2", "ab" * 32,
        "--set 'taps=[\"projected\",\"block:4\"]'", "Zhang et al. (2211.09799; TMLR 2023)", "87.7 (86.8–88.6)", "…/w.pt",
    ],
)  # fmt: skip
def test_words_that_are_no_place_stay(text):
    assert without_folders(text) == text


@settings(max_examples=500)
@given(TEXTS)
def test_no_text_keeps_a_home_an_address_or_an_account(text):
    left = without_folders(text)
    assert hides(left), left
    assert without_folders(left) == left


@pytest.mark.parametrize("piece", ["a", "/", "a/", HOME, "~a", "a:", "C:", "@", " /", "-", "x@"])
def test_a_long_text_of_one_piece_ends(piece):
    assert hides(without_folders(piece * 20_000))


def page_with(text: str) -> bytes:
    """A page that has a text wherever a text can be."""
    picture = tag("img", src=PICTURE, alt=text)
    body = (
        tag("p", text, title=text),
        tag("pre", tag("code", text)),
        tag("svg", tag("title", text), aria_label=text),
        picture,
    )
    return page_of(text, text, [Section(id="one", title=text, about=text, body=body)])


@given(TEXTS)
def test_no_page_keeps_them_whatever_its_texts_are(text):
    content = page_with(text).decode()
    assert PICTURE in content, "a picture is no text"
    page = Page(content.encode())
    read = [
        *page.words,
        *(
            value or ""
            for _, one in page.elements
            for key, value in one.items()
            if key in ("alt", "title", "aria-label")
        ),
    ]
    assert all(hides(words) for words in read), read


@given(TEXTS.filter(lambda text: "\ud800" not in text))
def test_what_hides_nothing_is_markup_as_before(text):
    made = tag("p", text, tag("b", text, title=text), class_="a")
    assert shown(made, lambda words: words) == made
    assert isinstance(shown(made, str), Html)


HOSTILE = [
    f"timm:vit@{HOME}alice/clip.pt",
    f"x:{HOME}alice/w",
    "~alice/w",
    "https://alice:tok@host.corp/w",
    f"{USERS}al ice/x",
    f"{ROOT}alice/w",
]


def spoil_store(store: Path, name: str) -> Manifest:
    manifest = read_manifest(store)
    targets = {
        key: dataclasses.replace(one, teacher={**one.teacher, "name": name})
        for key, one in manifest.spec.targets.items()
    }
    spec = dataclasses.replace(manifest.spec, targets=targets)
    spoiled = dataclasses.replace(manifest, spec=spec, classes=(name, *manifest.classes[1:]))
    (store / FILE_NAME).write_bytes(spoiled.to_bytes())
    return spoiled


def spoil_run(run: Path, manifest: Manifest, name: str) -> None:
    there = read_identity(run)
    recipe = {**there.recipe, "target": name}
    identity = RunIdentity(
        recipe=recipe, store_fingerprint=manifest.spec.fingerprint(), store_digest=there.store_digest, views=there.views,
        target={**manifest.spec.targets["projected"].mapping(), "tap": name}, online="fresh", source={"left_out": [name], "digest": name},
    )  # fmt: skip
    (run / "run.json").write_text(json.dumps({**identity.mapping(), "fingerprint": identity.fingerprint()}))
    found = probe_result(None, (name, *"123456789"))
    subjects = tuple(dataclasses.replace(one, name=f"teacher {name}", not_available=name) for one in found.subjects)
    save_result(dataclasses.replace(found, subjects=(*found.subjects, *subjects), train_digest=name), run)


def spoil_study(study: Path, name: str) -> None:
    outcome = read_outcome(study / "supervision")
    runs = tuple(dataclasses.replace(one, failure=name, store=name, name=name + one.name) for one in outcome.runs)
    changes = {"title": name, "claim": name, "source": name, "overrides": {name: name}, "built_in": False}
    write_outcome(dataclasses.replace(outcome, runs=runs, **changes), study / "supervision")


@pytest.mark.parametrize("name", [HOSTILE[0], "; ".join(HOSTILE)])
def test_no_file_brings_a_place_or_an_account_onto_the_page(run, study, tmp_path, name):
    spoil_run(run, spoil_store(run.parent / "store", name), name)
    spoil_study(study, name)
    shutil.copy(run / "pictures" / "patches.png", run / "pictures" / "alice@host.png")
    report([run.parent, study], tmp_path / "page.html")
    content = html.unescape(re.sub(r'src="data:[^"]*"', "", (tmp_path / "page.html").read_text()))
    for hidden in ("alice/", "alice:", "tok@", "al ice", HOME, USERS, ROOT, "://", str(tmp_path)):
        assert hidden not in content, hidden


def test_a_home_folder_gives_no_page_its_name(tmp_path):
    make_run(tmp_path / "home" / "alice" / "run")
    names = {run.name for place in ("alice", "alice/run") for run in find([tmp_path / "home" / place])[0]}
    assert names == {"run"}
    assert name_of_folder(Path.home()) == "run"
    assert name_of_folder(tmp_path / "home" / "alice" / "scenes") == "scenes"
