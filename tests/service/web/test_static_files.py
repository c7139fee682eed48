from __future__ import annotations

import hashlib
import importlib.resources
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import service
from service.web.rendering import TEMPLATES, environment
from service.web.static_files import FOLDER, static_files
from tests.service.web.browsing import browser_of

ROOT = Path(service.__file__).parents[1]
ROW = re.compile(r"^\| (\S+) \| (\S+) \| (\S+) \| .* \| .* \| ([0-9a-f]{64}) \|$", re.MULTILINE)


def test_vendored_files_are_as_their_makers_published_them() -> None:
    vendor = FOLDER / "vendor"
    rows = ROW.findall((vendor / "VENDORED.md").read_text())
    listed = {name: sha256 for name, _, _, sha256 in rows}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.iterdir()
        if path.suffix in (".js", ".css")
    }
    assert found == listed
    assert {name.split(".")[0] for name in found} == {
        path.name.split(".")[0] for path in vendor.glob("*.LICENSE.txt")
    }


def test_a_file_is_kept_for_ever_at_the_address_that_pages_give(http: TestClient) -> None:
    browser = browser_of(http)
    page = browser.get("/sign-in").text
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(addresses) >= 4
    for address in addresses:
        answer = browser.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        name = address.split("/", 3)[3]
        assert answer.content == (FOLDER / name).read_bytes()


def test_what_an_old_page_asks_for_is_given_and_not_kept(http: TestClient) -> None:
    answer = browser_of(http).get("/static/0123456789abcdef/snugnet.css")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert answer.headers["content-type"].startswith("text/css")


@pytest.mark.parametrize("name", ["nothing.css", "../rendering.py", "..%2Frendering.py", ""])
def test_nothing_else_is_given(http: TestClient, name: str) -> None:
    digest = static_files().digest
    assert browser_of(http).get(f"/static/{digest}/{name}").status_code == 404


def test_every_template_can_be_read() -> None:
    names = [path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.html")]
    assert len(names) >= 5
    for name in names:
        environment().get_template(name)


def test_the_editable_install_finds_templates_and_styles() -> None:
    package = importlib.resources.files("service.web")
    assert package.joinpath("templates", "base.html").is_file()
    assert package.joinpath("static", "vendor", "VENDORED.md").is_file()


def test_a_wheel_has_every_template_and_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("search", "predictors", "service", "workers", "migrations"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    build = (
        "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"service/web/{path.relative_to(FOLDER.parent).as_posix()}"
        for folder in (TEMPLATES, FOLDER)
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert len(expected) >= 15
    assert expected <= packed
    assert {"service/web/router.py", "migrations/versions/0007_web_sessions.py"} <= packed
