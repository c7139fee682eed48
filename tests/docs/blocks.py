"""The code blocks of a Markdown file, and what a comment before one says of it.

Marks, each a comment in the line before the block:
    <!-- not run: why -->         cannot run here
    <!-- file: job.yaml -->       is written to a file of that name
    <!-- in the background: why --> goes on while the blocks after it run
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUTORIALS = ("own-classifier", "second-budget", "raspberry-pi", "language-model", "vision-model")
PAGES = ("README.md", *(f"docs/tutorials/{name}.md" for name in TUTORIALS))
"""In the order in which they are run: what one leaves behind is there for those after it."""

MARK = re.compile(r"<!-- (?P<kind>not run|file|in the background): (?P<told>.+) -->")
FENCE = re.compile(r"(?P<indent> *)```(?P<language>\S*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """`mark` is empty, or one of the kinds of comments; `told` what stands behind its colon."""

    page: str
    line: int
    language: str
    code: str
    mark: str = ""
    told: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """Of a file by its path in the repository."""
    return parse((ROOT / page).read_text(encoding="utf-8"), page)


def parse(text: str, page: str) -> list[Block]:
    found: list[Block] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    mark: re.Match[str] | None = None
    for number, line in lines:
        fence = FENCE.fullmatch(line)
        if fence is None:
            mark = MARK.fullmatch(line.strip())
            continue
        code = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            code.append(inner.removeprefix(fence["indent"]))
        found.append(
            Block(
                page=page,
                line=number,
                language=fence["language"],
                code="\n".join(code) + "\n",
                mark=mark["kind"] if mark else "",
                told=mark["told"] if mark else "",
            )
        )
        mark = None
    return found
