"""The project itself: import contracts, every module, every link, and what must not be in the repository."""

import importlib
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import caev2

ROOT = Path(__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages(caev2.__path__, "caev2."))

# character classes keep the patterns from finding themselves
REGISTRIES = (
    r"py[p]i[.]org|python[h]osted[.]org|download[.]py[t]orch[.]org|registry[.]np[m]js|ana[c]onda[.]org|index-ur[l]"
)
MACHINE_PATHS = r"(?<![\w.~*-])/(?:work|tmp|root|home|Users)/"
LINK = re.compile(r"\[[^\]]*\]\((?!\w+:|#)([^)#\s]+)[^)]*\)")


def tracked_files() -> list[Path]:
    """Every file of the repository that git knows and that still exists."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    assert importlib.import_module(name).__doc__, f"{name} has no docstring"


def test_the_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("pattern", [REGISTRIES, MACHINE_PATHS], ids=["registry", "machine path"])
def test_no_file_names_a_package_registry_or_a_machine_path(pattern):
    search = re.compile(pattern.encode())
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}" for path in tracked_files() if (hit := search.search(path.read_bytes()))
    ]
    assert not found


@pytest.mark.parametrize("text", ["see pypi" + ".org", "in /tm" + "p/x", "(/wor" + "k/main)"])
def test_the_patterns_find_what_they_are_for(text):
    assert re.search(REGISTRIES + "|" + MACHINE_PATHS, text)


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wrong = [line for line in lines if not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not wrong


def test_every_link_between_pages_leads_somewhere():
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    links = [(page, link) for page in pages for link in LINK.findall(page.read_text(encoding="utf-8"))]
    dead = [f"{page.relative_to(ROOT)} -> {link}" for page, link in links if not (page.parent / link).exists()]
    assert not dead


def test_help_answers_within_half_a_second():
    def answer_s() -> float:
        begin = time.perf_counter()
        subprocess.run([Path(sys.executable).with_name("caev2"), "--help"], check=True, capture_output=True)
        return time.perf_counter() - begin

    # the quickest of several: a loaded machine slows some of them, an eager import all of them
    assert min(answer_s() for _ in range(7)) < 0.5
