"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NOTE = "<!-- Made by `python -m service.reference`; changes belong into the code. -->"


def page(title: str, *parts: str) -> str:
    """A whole file."""
    return "\n\n".join([NOTE, f"# {title}", *filter(None, parts)]) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Empty where there is no row; columns that are empty in every row are left out."""
    cells = [[cell(text) for text in row] for row in rows]
    used = [place for place in range(len(columns)) if any(row[place] for row in cells)]
    if not used:
        return ""
    lines = [[columns[place] for place in used], ["---"] * len(used)]
    lines += [[row[place] for place in used] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """In one line; a bar would begin the next cell."""
    return re.sub(r"\s*\n\s*", " ", text.strip()).replace("|", "\\|")


def code(text: object) -> str:
    return f"`{text}`"


def prose(text: str) -> str:
    """A docstring as paragraphs: its own lines joined, `Args:` and `Raises:` as lists."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.strip()):
        name, colon, rest = block.strip().partition(":\n")
        if colon and name in ("Args", "Raises", "Attributes"):
            paragraphs.append("\n".join(f"- {entry}" for entry in _entries(rest)))
        else:
            paragraphs.append(re.sub(r"\s*\n\s*", " ", block.strip()))
    return "\n\n".join(paragraphs)


def _entries(block: str) -> list[str]:
    """`name: what it is`, with the lines that belong to it."""
    entries: list[str] = []
    for line in block.splitlines():
        found = re.match(r"\s*([A-Za-z_][\w.\-]*): (.*)", line)
        if found and (not entries or len(line) - len(line.lstrip()) <= 4):
            entries.append(f"{code(found[1])}: {found[2].strip()}")
        elif entries:
            entries[-1] += f" {line.strip()}"
    return entries
