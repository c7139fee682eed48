"""CSV and JSON Lines files, read line by line, and Parquet, row by row; whatever is wrong is named
with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.data.parquet import MAX_COLUMNS, read_parquet
from search.errors import InvalidInput

MAX_TEXT_CHARS = 1_000_000
MAX_LINE_BYTES = 32 * 1024**2

Row = tuple[int, dict[str, Any]]
"""Number of the line, or of the row in Parquet, and the values of the columns that were asked for,
by role."""


def read_table(path: Path, suffix: str, columns: Mapping[str, str]) -> Iterator[Row]:
    """Rows of a file in the format that `suffix` says.

    Args:
        columns: name of the column (or key) of each role, `text` or `label`, say.

    Raises:
        InvalidInput: with `data` as the field, or `data.` and the role.
    """
    _check_names(columns)
    if suffix == ".parquet":
        yield from read_parquet(path, columns)
        return
    lines = _short_lines(path)
    yield from _csv_rows(lines, columns) if suffix == ".csv" else _json_rows(lines, columns)


def read_lines(path: Path) -> Iterator[str]:
    """Raises: InvalidInput where a line is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield _decoded(line, number)


def _short_lines(path: Path) -> Iterator[str]:
    """Lines of a table: one that holds half of the file is no line."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InvalidInput("data", f"line {number} has more than {MAX_LINE_BYTES} bytes")
            yield _decoded(line, number)


def _decoded(line: bytes, number: int) -> str:
    try:
        # A byte order mark would otherwise become part of the first column's name.
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "data", f"is not UTF-8: line {number}, byte {error.start + 1}"
        ) from None


def check_text(value: Any, line: int, role: str = "text") -> str:
    """A text that a tokenizer takes."""
    field = f"data.{role}"
    if not isinstance(value, str):
        raise InvalidInput(field, f"line {line}: the text must be a string")
    if not value.strip():
        raise InvalidInput(field, f"line {line}: the text is empty")
    if len(value) > MAX_TEXT_CHARS:
        raise InvalidInput(
            field, f"line {line}: the text has more than {MAX_TEXT_CHARS} characters"
        )
    check_characters(value, line)
    return value


def check_label(value: Any, line: int) -> str:
    """A label as a word: labels may be words, whole numbers or truth values."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise InvalidInput(
            "data.label", f"line {line}: a label is a string or a whole number, got {value!r:.40}"
        )
    if not value.strip():
        raise InvalidInput("data.label", f"line {line}: the label is empty")
    check_characters(value, line)
    return value.strip()


def check_characters(text: str, line: int) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer and no file takes."""
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidInput("data", f"line {line} holds half of a surrogate pair")


def _check_names(columns: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for role, name in columns.items():
        if name in seen:
            raise InvalidInput(f"data.{role}", f"must name another column than data.{seen[name]}")
        seen[name] = role


def _csv_rows(lines: Iterator[str], columns: Mapping[str, str]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise InvalidInput("data", "is empty")
        if len(header) > MAX_COLUMNS:
            raise InvalidInput(
                "data", f"has {len(header)} columns; at most {MAX_COLUMNS} are read"
            )
        places = {role: _column(header, name, role) for role, name in columns.items()}
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidInput(
                    "data",
                    f"line {reader.line_num} has {len(row)} columns, the header {len(header)}",
                )
            yield reader.line_num, {role: row[place] for role, place in places.items()}
    except csv.Error as error:
        raise InvalidInput("data", f"is not valid CSV: line {reader.line_num}: {error}") from None


def _column(header: list[str], name: str, role: str) -> int:
    names = [column.strip() for column in header]
    if names.count(name) != 1:
        problem = "is missing" if name not in names else "is given twice"
        found = ", ".join(map(repr, names[:20]))
        raise InvalidInput(f"data.{role}", f"column {name!r} {problem}; the header has {found}")
    return names.index(name)


def _json_rows(lines: Iterator[str], columns: Mapping[str, str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput("data", f"line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise InvalidInput("data", f"line {number} must be a JSON object")
        for role, name in columns.items():
            if name not in row:
                found = ", ".join(map(repr, list(row)[:20]))
                raise InvalidInput(
                    f"data.{role}",
                    f"column {name!r} is missing in line {number}, which has {found}",
                )
        yield number, {role: row[name] for role, name in columns.items()}
