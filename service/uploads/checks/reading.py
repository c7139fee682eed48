"""What an upload's files say, read as a whole: the one place where a stranger's bytes are parsed
before a worker does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from search.compress.teacher_facts import read_facts
from search.data.dataset import read_dataset, read_unlabelled, table_of
from search.model.checkpoint import check_model_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is to be read, and as what.

    Attributes:
        files: place of each file by its name.
        task: None is the first of the model's family.
        columns: by role, of data.
    """

    kind: str
    files: Mapping[str, str]
    task: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def field(self) -> str:
        """To blame for what no single file or column is at fault for."""
        return {"dataset": "data", "unlabelled": "unlabelled"}.get(self.kind, "files")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


Inspect = Callable[[Reading], dict[str, Any]]
"""Reads, here or in a process of its own. Raises: InvalidInput."""


def read(reading: Reading, folder: Path) -> dict[str, Any]:
    """Plain data that say what the files in `folder` are.

    Raises:
        InvalidInput: with what is wrong; the field is a file of a model, or a column of data.
    """
    if reading.kind == "model":
        return check_model_folder(folder, task=reading.task).shape.to_dict()
    task = reading.task or "text-classification"
    if reading.kind == "teacher":
        facts = read_facts(folder, task)
        return {"shape": facts.shape.to_dict(), "labels": list(facts.label_names)}
    is_labelled = reading.kind == "dataset"
    table = folder / table_of(reading.files, task, is_labelled=is_labelled)
    read_table = read_dataset if is_labelled else read_unlabelled
    return read_table(table, task=task, columns=reading.columns).summary()


def read_here(reading: Reading) -> dict[str, Any]:
    """In this process: for bytes that are trusted, or were read before."""
    with folder_of(reading.files) as folder:
        return read(reading, folder)


@contextmanager
def folder_of(files: Mapping[str, str], **place: Any) -> Iterator[Path]:
    """The files by their names, as links, in a temporary folder at `place`."""
    with tempfile.TemporaryDirectory(**{"prefix": "snugnet-upload-", **place}) as folder:
        for name, target in files.items():
            link = Path(folder) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
        yield Path(folder)
