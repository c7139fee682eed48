"""What an uploaded model says of where it is from: its name on a hub, and its licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.families.config import CONFIG_FILE

CARD_FILE = "README.md"
MAX_CARD_BYTES = 1024**2
# `owner/name`; a path on somebody's disk is nobody's business.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LICENSE = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """None where the upload does not say."""

    base_model: str | None = None
    license: str | None = None


def origin_of(files: Mapping[str, Path]) -> Origin:
    """Of an upload's files by name: a stranger's, so what is no plain word is left out."""
    name = license = None
    if CONFIG_FILE in files:
        name = json.loads(files[CONFIG_FILE].read_bytes()).get("_name_or_path")
    if CARD_FILE in files:
        license = _front_matter(files[CARD_FILE]).get("license")
    return Origin(base_model=_matching(_HUB_NAME, name), license=_matching(_LICENSE, license))


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the first two lines of dashes; nothing where it is none."""
    if card.stat().st_size > MAX_CARD_BYTES:
        return {}
    text = card.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---[ \t]*\r?\n(.*?)\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
