"""What every task reads: a file of the user's, and how its rows are divided. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

from search.data.documents import Documents, read_documents
from search.data.images import read_images
from search.data.splits import Splits
from search.data.tagged import TaggedTexts, read_tagged_texts
from search.data.texts import (
    LabelledTexts,
    PlainTexts,
    read_labelled_texts,
    read_plain_texts,
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

Read = Callable[[Path, str, Mapping[str, str]], Dataset]

TABLES = (".csv", ".jsonl")
# Of each task: how it is read, the formats, and its columns' usual names by role.
_READERS: dict[str, tuple[Read, tuple[str, ...], Mapping[str, str]]] = {
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
assert set(_READERS) == set(TASKS)


def formats(task: str) -> tuple[str, ...]:
    """Endings of the files that a task reads.

    Raises:
        InvalidInput: there is no such task.
    """
    if task not in _READERS:
        raise InvalidInput("task", f"{task!r} is not one of {', '.join(_READERS)}")
    return _READERS[task][1]


def columns_of(task: str, given: Mapping[str, str | None]) -> dict[str, str]:
    """Name of the column (or array) of each role of a task, the usual one where none is given.

    Raises:
        InvalidInput: a column is given that the task has no use for.
    """
    formats(task)
    usual = _READERS[task][2]
    for role, name in given.items():
        if name is not None and role not in usual:
            roles = ", ".join(f"data.{known}" for known in usual)
            raise InvalidInput(f"data.{role}", f"{task} does not read it; it reads {roles}")
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
    names = columns_of(task, columns or {})
    suffix = PurePath(name or path.name).suffix.lower()
    if suffix not in formats(task):
        known = " or ".join(formats(task))
        raise InvalidInput("data", f"must be a file that ends in {known}, for {task}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidInput("data", f"has more than {MAX_FILE_BYTES} bytes")
    return _READERS[task][0](path, suffix, names)
