"""Running text: documents, or stretches of them, none of which is in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.data.splits import Splits, split_by_size
from search.data.tables import check_text, read_lines, read_table
from search.errors import InvalidInput

MIN_CHARS = 10_000
# A document is cut where it is longer than a 200th of all, into at least 40 stretches in all.
MOST_STRETCHES, LEAST_STRETCHES = 200, 40
SHORTEST_STRETCH = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """Texts that a model reads from their beginnings."""

    texts: tuple[str, ...]
    num_documents: int
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def summary(self) -> dict[str, Any]:
        return {
            "num_rows": self.num_documents,
            "num_labels": 0,
            "num_chars": sum(map(len, self.texts)),
        }

    def split(self, seed: int) -> Splits:
        """By characters, and by documents unless there is only a few."""
        return split_by_size([len(text) for text in self.texts], seed)


def read_documents(path: Path, suffix: str, columns: Mapping[str, str]) -> Documents:
    """A text file is one document, every row of a table another; equal ones count once.

    Raises:
        InvalidInput: an empty document, or too little text.
    """
    documents = tuple(dict.fromkeys(_documents(path, suffix, columns)))
    total = sum(map(len, documents))
    if total < MIN_CHARS:
        raise InvalidInput("data", f"has {total} characters of text; at least {MIN_CHARS} needed")
    longest = max(total // MOST_STRETCHES, min(SHORTEST_STRETCH, total // LEAST_STRETCHES))
    texts = tuple(stretch for text in documents for stretch in stretches(text, longest))
    return Documents(texts=texts, num_documents=len(documents))


def stretches(text: str, longest: int) -> Iterator[str]:
    """The text in pieces of at most `longest` characters, cut at the ends of lines if it can."""
    start = 0
    while len(text) - start > longest:
        end = text.rfind("\n", start, start + longest) + 1
        if end <= start:
            end = start + longest
        yield text[start:end]
        start = end
    yield text[start:]


def _documents(path: Path, suffix: str, columns: Mapping[str, str]) -> Iterable[str]:
    if suffix != ".txt":
        return (check_text(row["text"], line) for line, row in read_table(path, suffix, columns))
    text = "".join(read_lines(path))
    if not text.strip():
        raise InvalidInput("data", "is empty: it has no text")
    return [text]
