"""From the rows of an upload to what is read of its files, and back to its summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from search.compress.teacher_facts import TeacherFacts, read_facts
from search.data.dataset import columns_of, table_of
from search.shape import ModelShape
from service.database.models import Upload, UploadFile
from service.store.protocol import ArtifactStore
from service.uploads.checks.reading import Inspect, Reading, folder_of, read_here
from service.uploads.uploads import files_of

# The data decide how many classes there are.
_OWN_LABELS = ("language-modelling", "sentence-embedding")


def reading_of(store: ArtifactStore, upload: Upload, files: Iterable[UploadFile]) -> Reading:
    """All files of an upload, read as it was declared."""
    known = dict(upload.summary or {})
    task = known.pop("task", None)
    return _reading(store, upload.kind, files, task, known)


def summary_of(
    upload: Upload, files: Iterable[UploadFile], found: Mapping[str, Any]
) -> dict[str, Any]:
    """What the upload is known by, once its files were found to say this."""
    if upload.kind != "model":
        return {**(upload.summary or {}), **found}
    shape = dict(found)
    if shape["task"] not in _OWN_LABELS:
        del shape["num_labels"]
    return {"shape": shape, "size_bytes": sum(file.size_bytes for file in files)}


def read_rows(
    session: Session,
    store: ArtifactStore,
    upload: Upload,
    task: str,
    columns: Mapping[str, str | None],
    inspect: Inspect = read_here,
) -> dict[str, Any]:
    """Summary of an upload of rows; they are read again where they were not checked for this task
    and these columns."""
    files = files_of(session, upload.id)
    is_labelled = upload.kind == "dataset"
    table = table_of([file.name for file in files], task, is_labelled=is_labelled)
    names = columns_of(task, columns, name=table, is_labelled=is_labelled)
    known = {"task": "text-classification", **(upload.summary or {})}
    if {"task": task, **names}.items() <= known.items():
        return upload.summary or {}
    return inspect(_reading(store, upload.kind, files, task, columns))


def check_model(
    store: ArtifactStore, files: Iterable[UploadFile], task: str, inspect: Inspect = read_here
) -> ModelShape:
    """Raises: InvalidInput when the files are no model for the task."""
    return ModelShape.from_dict(inspect(_reading(store, "model", files, task, {})))


def teacher_facts(store: ArtifactStore, files: Iterable[UploadFile], task: str) -> TeacherFacts:
    """Raises: InvalidInput when the files are no model that could teach the task."""
    with folder_of(_places(store, files)) as folder:
        return read_facts(folder, task)


def _reading(
    store: ArtifactStore,
    kind: str,
    files: Iterable[UploadFile],
    task: str | None,
    columns: Mapping[str, str | None],
) -> Reading:
    return Reading(kind=kind, files=_places(store, files), task=task, columns=columns)


def _places(store: ArtifactStore, files: Iterable[UploadFile]) -> dict[str, str]:
    return {file.name: str(store.path(file.sha256)) for file in files}
