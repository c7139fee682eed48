"""Texts, or pairs of texts, with a label each; and texts without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.data.labels import class_summary, name_classes
from search.data.splits import MIN_ROWS_PER_CLASS, Splits, split_by_class, split_by_size
from search.data.tables import check_label, check_text, read_table
from search.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTexts:
    """Rows in the file's order; `labels[i]` is an index into `label_names`.

    Attributes:
        pairs: the second text of each row, or None.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    pairs: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def summary(self) -> dict[str, Any]:
        return class_summary(self.labels, self.label_names)

    def split(self, seed: int) -> Splits:
        return split_by_class(self.labels, len(self.label_names), seed)


def read_labelled_texts(path: Path, suffix: str, columns: Mapping[str, str]) -> LabelledTexts:
    """`columns` names `text`, `label` and, for pairs, `text_pair`."""
    texts, pairs, names = [], [], []
    has_pairs = "text_pair" in columns
    for line, row in read_table(path, suffix, columns):
        texts.append(check_text(row["text"], line))
        if has_pairs:
            pairs.append(check_text(row["text_pair"], line, "text_pair"))
        names.append(check_label(row["label"], line))
    label_names = name_classes(names)
    index = {name: i for i, name in enumerate(label_names)}
    return LabelledTexts(
        texts=tuple(texts),
        labels=tuple(index[name] for name in names),
        label_names=label_names,
        pairs=tuple(pairs) if has_pairs else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainTexts:
    """Texts without labels, of which a network is to say the same as another.

    Attributes:
        pairs: the second text of each row, or None.
    """

    texts: tuple[str, ...]
    label_names: tuple[str, ...] = ()
    pairs: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def summary(self) -> dict[str, Any]:
        return {"num_rows": len(self), "num_labels": 0}

    def split(self, seed: int) -> Splits:
        return split_by_size([1] * len(self), seed)


def read_plain_texts(path: Path, suffix: str, columns: Mapping[str, str]) -> PlainTexts:
    rows = read_table(path, suffix, columns)
    # A text that stands twice would be learnt and then asked.
    texts = tuple(dict.fromkeys(check_text(row["text"], line) for line, row in rows))
    if len(texts) < MIN_ROWS_PER_CLASS:
        raise InvalidInput(
            "data",
            f"has {len(texts)} different texts; the splits need at least {MIN_ROWS_PER_CLASS}",
        )
    return PlainTexts(texts=texts)


def read_unlabelled_texts(path: Path, suffix: str, columns: Mapping[str, str]) -> PlainTexts:
    """Texts, or pairs of them where `columns` names `text_pair`, each once.

    Raises:
        InvalidInput: there is none.
    """
    rows = read_table(path, suffix, columns)
    found = dict.fromkeys(
        tuple(check_text(row[role], line, role) for role in columns) for line, row in rows
    )
    if not found:
        raise InvalidInput("data", "is empty: it has no row")
    first, *others = zip(*found, strict=True)
    return PlainTexts(texts=first, pairs=others[0] if others else None)
