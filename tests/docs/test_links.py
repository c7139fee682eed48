"""What README.md and the documents point to is there, and the site leaves no page out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?)(?: +\{ *#([\w\-]+) *\})?$", re.M)
OTHER_HOSTS = re.compile(r"""(?:src|href)=["']?(?:https?:)?//[^"'>\s]+""")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in _links(page):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{target} is not there"
        assert path.is_relative_to(ROOT), f"{target} is outside of the repository"
        if anchor:
            assert anchor in _anchors(path), f"{target}: no such heading"


def test_the_navigation_names_every_page_once() -> None:
    named = list(_named(_configuration()["nav"]))
    assert sorted(named) == sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))


def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "site"
    assert (site / "tutorials" / "own-classifier.html").is_file()
    for page in site.rglob("*.html"):
        loaded = [
            found
            for found in OTHER_HOSTS.findall(page.read_text(encoding="utf-8"))
            if not found.startswith("href=")  # a link is followed only by who clicks on it
        ]
        assert loaded == [], page
        for line in re.findall(r"<link[^>]+>", page.read_text(encoding="utf-8")):
            assert "://" not in line, line


def _links(page: Path) -> Iterator[str]:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
        if not re.match(r"[a-z]+:", target):
            yield target


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {given or _slug(title) for title, given in HEADING.findall(text)}


def _slug(title: str) -> str:
    """As the site makes one of a heading."""
    plain = re.sub(r"[^\w\s\-]", "", title.replace("`", "")).strip().lower()
    return re.sub(r"[\s\-]+", "-", plain)


def _configuration() -> dict[str, Any]:
    with (ROOT / "zensical.toml").open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    return project


def _named(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        for value in entry.values():
            yield from [value] if isinstance(value, str) else _named(value)
