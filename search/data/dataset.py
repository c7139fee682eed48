"""What every task reads: a file of the user's, and how its rows are divided. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

from search.data.documents import Documents, read_documents
from search.data.images import Images, read_images, read_unlabelled_images
from search.data.listing import lists_images
from search.data.pictures import read_pictures, read_unlabelled_pictures
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

TABLES = (".csv", ".jsonl", ".parquet")
NESTED_TABLES = (".jsonl", ".parquet")
ARRAYS = ".npz"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
IMAGES_END_IN = " or ".join(IMAGE_SUFFIXES)
# Columns of encoded images, as `datasets` has them; arrays have the plural.
PICTURES = {"image": "image", "label": "label"}


def _by_suffix(read_arrays: Read, read_encoded: Read) -> Read:
    def read(path: Path, suffix: str, columns: Mapping[str, str]) -> Any:
        return (read_arrays if suffix == ARRAYS else read_encoded)(path, suffix, columns)

    return read


_READERS: dict[str, _Reader] = {
    "text-classification": (read_labelled_texts, TABLES, {"text": "text", "label": "label"}),
    "pair-classification": (
        read_labelled_texts,
        TABLES,
        {"text": "text", "text_pair": "text_pair", "label": "label"},
    ),
    "token-classification": (
        read_tagged_texts,
        NESTED_TABLES,
        {"text": "tokens", "label": "tags"},
    ),
    "sentence-embedding": (read_plain_texts, TABLES, {"text": "text"}),
    "language-modelling": (read_documents, (".txt", *TABLES), {"text": "text"}),
    "image-classification": (
        _by_suffix(read_images, read_pictures),
        (ARRAYS, *NESTED_TABLES),
        {"image": "images", "label": "labels"},
    ),
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
    "image-classification": (
        _by_suffix(read_unlabelled_images, read_unlabelled_pictures),
        (ARRAYS, *NESTED_TABLES),
        {"image": "images"},
    ),
}
assert set(_READERS) == set(_UNLABELLED) == set(TASKS)


def formats(task: str, *, is_labelled: bool = True) -> tuple[str, ...]:
    """Endings of the files that a task reads.

    Raises:
        InvalidInput: there is no such task.
    """
    return _reader(task, is_labelled)[1]


def columns_of(
    task: str, given: Mapping[str, str | None], *, name: str = "", is_labelled: bool = True
) -> dict[str, str]:
    """Name of the column (or array) of each role of a task, the usual one where none is given.

    Args:
        name: of the file: images in tables are called otherwise than images in arrays.

    Raises:
        InvalidInput: a column is given that the task has no use for.
    """
    usual, field = _reader(task, is_labelled)[2], _field(is_labelled)
    for role, column in given.items():
        if column is not None and role not in usual:
            roles = ", ".join(f"{field}.{known}" for known in usual)
            raise InvalidInput(f"{field}.{role}", f"{task} does not read it; it reads {roles}")
    if "image" in usual and _suffix(name) in NESTED_TABLES:
        usual = {role: PICTURES[role] for role in usual}
    return {role: given.get(role) or column for role, column in usual.items()}


def table_of(names: Collection[str], task: str, *, is_labelled: bool = True) -> str:
    """Which of a data set's files is the table: the only one, or the one that lists the others.

    Raises:
        InvalidInput: there is none, or files that it cannot list.
    """
    known = formats(task, is_labelled=is_labelled)
    tables = [name for name in names if _suffix(name) in known and "/" not in name]
    if len(tables) != 1 or (len(names) > 1 and not lists_images(task, tables[0])):
        raise InvalidInput("data", f"must be one file that ends in {' or '.join(known)}")
    for name in names:
        if name != tables[0] and _suffix(name) not in IMAGE_SUFFIXES:
            raise InvalidInput(
                "data", f"{name!r} is no image; beside a listing, files end in {IMAGES_END_IN}"
            )
    return tables[0]


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
    names = columns_of(task, columns, name=name, is_labelled=is_labelled)
    suffix = _suffix(name)
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


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _field(is_labelled: bool) -> str:
    return "data" if is_labelled else "unlabelled"
