"""What every task reads: a file of the user's, and how its rows are divided. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

from search.data.documents import Documents, read_documents
from search.data.images import Images, read_images, read_unlabelled_images
from search.data.splits import Splits
from search.data.tagged import TaggedTexts, read_tagged_texts
from search.data.texts import (
    LabelledTexts,
    PlainTexts,
    read_labelled_texts,
    read_plain_texts,
    read_unlabelled_texts,
)
from search.errors import InvalidInput
from search.shape import TASKS

MAX_FILE_BYTES = 512 * 1024**2


class Dataset(Protocol):
    """The rows of a file, checked."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Empty where a task has no classes."""

    def __len__(self) -> int: ...

    def summary(self) -> dict[str, Any]:
        """Plain data for people: how many rows, and of which class."""

    def split(self, seed: int) -> Splits:
        """The same split for the same rows and seed, on every machine."""


Texts = LabelledTexts | PlainTexts | TaggedTexts | Documents
"""Data sets of whatever is read by a tokenizer."""

Unlabelled = PlainTexts | Documents | Images
"""Rows without labels."""

Read = Callable[[Path, str, Mapping[str, str]], Any]
# How a task's file is read, its formats, and its columns' usual names by role.
_Reader = tuple[Read, tuple[str, ...], Mapping[str, str]]

TABLES = (".csv", ".jsonl")
_READERS: dict[str, _Reader] = {
    "text-classification": (read_labelled_texts, TABLES, {"text": "text", "label": "label"}),
    "pair-classification": (
        read_labelled_texts,
        TABLES,
        {"text": "text", "text_pair": "text_pair", "label": "label"},
    ),
    "token-classification": (read_tagged_texts, (".jsonl",), {"text": "tokens", "label": "tags"}),
    "sentence-embedding": (read_plain_texts, TABLES, {"text": "text"}),
    "language-modelling": (read_documents, (".txt", *TABLES), {"text": "text"}),
    "image-classification": (read_images, (".npz",), {"image": "images", "label": "labels"}),
}
# Words that nobody tagged are texts as any other.
_TEXTS: _Reader = (read_unlabelled_texts, TABLES, {"text": "text"})
_UNLABELLED: dict[str, _Reader] = {
    "text-classification": _TEXTS,
    "pair-classification": (
        read_unlabelled_texts,
        TABLES,
        {"text": "text", "text_pair": "text_pair"},
    ),
    "token-classification": _TEXTS,
    "sentence-embedding": _TEXTS,
    "language-modelling": _READERS["language-modelling"],
    "image-classification": (read_unlabelled_images, (".npz",), {"image": "images"}),
}
assert set(_READERS) == set(_UNLABELLED) == set(TASKS)


def formats(task: str, *, is_labelled: bool = True) -> tuple[str, ...]:
    """Endings of the files that a task reads.

    Raises:
        InvalidInput: there is no such task.
    """
    return _reader(task, is_labelled)[1]


def columns_of(
    task: str, given: Mapping[str, str | None], *, is_labelled: bool = True
) -> dict[str, str]:
    """Name of the column (or array) of each role of a task, the usual one where none is given.

    Raises:
        InvalidInput: a column is given that the task has no use for.
    """
    usual, field = _reader(task, is_labelled)[2], _field(is_labelled)
    for role, name in given.items():
        if name is not None and role not in usual:
            roles = ", ".join(f"{field}.{known}" for known in usual)
            raise InvalidInput(f"{field}.{role}", f"{task} does not read it; it reads {roles}")
    return {role: given.get(role) or name for role, name in usual.items()}


def read_dataset(
    path: Path,
    *,
    task: str = "text-classification",
    columns: Mapping[str, str | None] | None = None,
    name: str | None = None,
) -> Dataset:
    """Read and check a whole file.

    Args:
        columns: by role, `text` or `label`, say; see `columns_of`.
        name: the file's name where `path` does not end in it, as in a store by hash.

    Raises:
        InvalidInput: with `task`, `data`, or `data.` and a role as the field.
    """
    dataset: Dataset = _read(path, task, columns or {}, name or path.name, is_labelled=True)
    return dataset


def read_unlabelled(
    path: Path,
    *,
    task: str = "text-classification",
    columns: Mapping[str, str | None] | None = None,
    name: str | None = None,
) -> Unlabelled:
    """The same for rows of which nobody knows the labels: columns of labels are not looked at.

    Raises:
        InvalidInput: with `task`, `unlabelled`, or `unlabelled.` and a role as the field.
    """
    try:
        rows: Unlabelled = _read(path, task, columns or {}, name or path.name, is_labelled=False)
    except InvalidInput as error:
        # Readers are of data, whatever they are asked for.
        field = re.sub(r"^data\b", _field(False), error.field)
        raise InvalidInput(field, error.reason) from None
    return rows


def _read(
    path: Path, task: str, columns: Mapping[str, str | None], name: str, *, is_labelled: bool
) -> Any:
    names = columns_of(task, columns, is_labelled=is_labelled)
    suffix = PurePath(name).suffix.lower()
    if suffix not in formats(task, is_labelled=is_labelled):
        known = " or ".join(formats(task, is_labelled=is_labelled))
        raise InvalidInput("data", f"must be a file that ends in {known}, for {task}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidInput("data", f"has more than {MAX_FILE_BYTES} bytes")
    return _reader(task, is_labelled)[0](path, suffix, names)


def _reader(task: str, is_labelled: bool) -> _Reader:
    if task not in _READERS:
        raise InvalidInput("task", f"{task!r} is not one of {', '.join(_READERS)}")
    return (_READERS if is_labelled else _UNLABELLED)[task]


def _field(is_labelled: bool) -> str:
    return "data" if is_labelled else "unlabelled"
