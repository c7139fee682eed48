"""Labelled texts from a CSV or JSON Lines file, and their fixed splits. Needs no torch."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from search.errors import InvalidInput

FORMATS = (".csv", ".jsonl")
MAX_FILE_BYTES = 512 * 1024**2
MAX_TEXT_CHARS = 1_000_000
# 5 % of 20 is one: every class has a row in the smallest split.
MIN_ROWS_PER_CLASS = 20
SEARCH_SHARE, VALIDATION_SHARE, TEST_SHARE = 0.10, 0.05, 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Rows in the file's order; `labels[i]` is an index into `label_names`."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def summary(self) -> dict[str, Any]:
        counts = Counter(self.labels)
        return {
            "num_rows": len(self),
            "num_labels": len(self.label_names),
            "rows_by_label": {name: counts[i] for i, name in enumerate(self.label_names)},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """Row indices, ascending. `test` is read once, at the end, for the figures reported."""

    train: tuple[int, ...]
    search: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def read_dataset(
    path: Path, *, text: str = "text", label: str = "label", name: str | None = None
) -> Dataset:
    """Read and check a whole file.

    Args:
        text: name of the column (or key) that holds the texts.
        label: name of the column (or key) that holds the labels.
        name: the file's name where `path` does not end in it, as in a store by hash.

    Raises:
        InvalidInput: with `data`, `data.text` or `data.label` as the field.
    """
    file_format = PurePath(name or path.name).suffix.lower()
    if file_format not in FORMATS:
        raise InvalidInput("data", f"must be a file that ends in {' or '.join(FORMATS)}")
    if text == label:
        raise InvalidInput("data.label", "must name another column than data.text")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidInput("data", f"has more than {MAX_FILE_BYTES} bytes")
    lines = _lines(path)
    rows = (
        _csv_rows(lines, text, label) if file_format == ".csv" else _json_rows(lines, text, label)
    )
    return _dataset(rows)


def split_rows(dataset: Dataset, seed: int) -> Splits:
    """The same split for the same rows and seed, on every machine; each class keeps its share."""
    train: list[int] = []
    search: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for label in range(len(dataset.label_names)):
        rows = [i for i, value in enumerate(dataset.labels) if value == label]
        random.Random(f"split:{seed}:{label}").shuffle(rows)
        for part, share in (
            (test, TEST_SHARE),
            (validation, VALIDATION_SHARE),
            (search, SEARCH_SHARE),
        ):
            count = max(1, round(share * dataset.labels.count(label)))
            part += rows[:count]
            rows = rows[count:]
        train += rows
    return Splits(
        train=tuple(sorted(train)),
        search=tuple(sorted(search)),
        validation=tuple(sorted(validation)),
        test=tuple(sorted(test)),
    )


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                # A byte order mark would otherwise become part of the first column's name.
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidInput(
                    "data", f"is not UTF-8: line {number}, byte {error.start + 1}"
                ) from None


Row = tuple[int, str, str]  # line number, text, label


def _csv_rows(lines: Iterator[str], text: str, label: str) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise InvalidInput("data", "is empty")
        text_column = _column(header, text, "data.text")
        label_column = _column(header, label, "data.label")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidInput(
                    "data",
                    f"line {reader.line_num} has {len(row)} columns, the header {len(header)}",
                )
            yield reader.line_num, row[text_column], row[label_column].strip()
    except csv.Error as error:
        raise InvalidInput("data", f"is not valid CSV: line {reader.line_num}: {error}") from None


def _column(header: list[str], name: str, field: str) -> int:
    names = [column.strip() for column in header]
    if names.count(name) != 1:
        problem = "is missing" if name not in names else "is given twice"
        found = ", ".join(map(repr, names[:20]))
        raise InvalidInput(field, f"column {name!r} {problem}; the header has {found}")
    return names.index(name)


def _json_rows(lines: Iterator[str], text: str, label: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput("data", f"line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise InvalidInput("data", f"line {number} must be a JSON object")
        for key, field in ((text, "data.text"), (label, "data.label")):
            if key not in row:
                found = ", ".join(map(repr, list(row)[:20]))
                raise InvalidInput(
                    field, f"column {key!r} is missing in line {number}, which has {found}"
                )
        if not isinstance(row[text], str):
            raise InvalidInput("data.text", f"line {number}: the text must be a string")
        yield number, row[text], _json_label(number, row[label])


def _json_label(number: int, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value.strip()
    raise InvalidInput(
        "data.label", f"line {number}: a label is a string or a whole number, got {value!r:.40}"
    )


def _dataset(rows: Iterator[Row]) -> Dataset:
    texts, names = [], []
    for number, text, label in rows:
        if not text.strip():
            raise InvalidInput("data.text", f"line {number}: the text is empty")
        if len(text) > MAX_TEXT_CHARS:
            raise InvalidInput(
                "data.text", f"line {number}: the text has more than {MAX_TEXT_CHARS} characters"
            )
        if not label:
            raise InvalidInput("data.label", f"line {number}: the label is empty")
        # JSON can spell half of a surrogate pair, which no tokenizer and no file takes.
        if not (text + label).isascii() and any("\ud800" <= c <= "\udfff" for c in text + label):
            raise InvalidInput("data", f"line {number} holds half of a surrogate pair")
        texts.append(text)
        names.append(label)
    label_names = _check_labels(names)
    index = {name: i for i, name in enumerate(label_names)}
    return Dataset(
        texts=tuple(texts), labels=tuple(index[name] for name in names), label_names=label_names
    )


def _check_labels(names: list[str]) -> tuple[str, ...]:
    if not names:
        raise InvalidInput("data", "is empty: it has no row")
    counts = Counter(names)
    if len(counts) == 1:
        raise InvalidInput(
            "data.label", f"every row has the label {names[0]!r}; at least two classes are needed"
        )
    needed = MIN_ROWS_PER_CLASS * len(counts)
    if len(names) < needed:
        raise InvalidInput(
            "data",
            f"has {len(names)} rows; the splits need at least {needed} for {len(counts)} classes, "
            f"{MIN_ROWS_PER_CLASS} of each",
        )
    rarest, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    if count < MIN_ROWS_PER_CLASS:
        raise InvalidInput(
            "data.label",
            f"class {rarest!r} has {count} rows; the splits need at least {MIN_ROWS_PER_CLASS}",
        )
    return tuple(sorted(counts, key=_label_order))


def _label_order(name: str) -> tuple[int, int, str]:
    """Numbers by value before words by spelling, so that class 10 follows class 9."""
    digits = name.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 18
    return (0, int(name), name) if is_number else (1, 0, name)
