"""Sentences cut into words, with a tag for each word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.data.labels import check_several, in_order
from search.data.splits import MIN_ROWS_PER_CLASS, Splits, split_by_tags
from search.data.tables import check_characters, check_label, read_table
from search.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedTexts:
    """Rows in the file's order; `tags[i][j]`, of `words[i][j]`, is an index into `label_names`.

    Attributes:
        lines: of the file, where each row stands.
    """

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]
    label_names: tuple[str, ...]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.words)

    def summary(self) -> dict[str, Any]:
        counts = Counter(tag for row in self.tags for tag in row)
        return {
            "num_rows": len(self),
            "num_labels": len(self.label_names),
            "words_by_label": {name: counts[i] for i, name in enumerate(self.label_names)},
        }

    def split(self, seed: int) -> Splits:
        return split_by_tags(self.tags, seed)


def read_tagged_texts(path: Path, suffix: str, columns: Mapping[str, str]) -> TaggedTexts:
    """`columns` names `text`, a list of words, and `label`, a list of tags."""
    words, names, lines = [], [], []
    for line, row in read_table(path, suffix, columns):
        words.append(_words(row["text"], columns["text"], line))
        names.append(_tags(row["label"], columns["label"], line))
        if len(words[-1]) != len(names[-1]):
            raise InvalidInput(
                "data.label",
                f"line {line} has {len(words[-1])} {columns['text']}, but {len(names[-1])} "
                f"{columns['label']}",
            )
        lines.append(line)
    if len(words) < MIN_ROWS_PER_CLASS:
        raise InvalidInput(
            "data", f"has {len(words)} rows; the splits need at least {MIN_ROWS_PER_CLASS}"
        )
    counts = Counter(name for row in names for name in row)
    check_several(counts, "word")
    label_names = in_order(counts)
    index = {name: i for i, name in enumerate(label_names)}
    return TaggedTexts(
        words=tuple(words),
        tags=tuple(tuple(index[name] for name in row) for row in names),
        label_names=label_names,
        lines=tuple(lines),
    )


def _words(value: Any, column: str, line: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidInput("data.text", f"line {line}: {column} must be a list of strings")
    if not value:
        raise InvalidInput("data.text", f"line {line}: {column} is empty")
    for place, word in enumerate(value, start=1):
        if not word.strip():
            raise InvalidInput("data.text", f"line {line}: word {place} is empty")
        check_characters(word, line)
    return tuple(value)


def _tags(value: Any, column: str, line: int) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidInput("data.label", f"line {line}: {column} must be a list of labels")
    return tuple(check_label(tag, line) for tag in value)
