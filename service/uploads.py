"""Models and data on their way in: declared, received, then checked as a whole or dropped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.orm import Session

from search.compress.teacher_facts import TeacherFacts, read_facts
from search.data.dataset import (
    Dataset,
    Unlabelled,
    columns_of,
    formats,
    read_dataset,
    read_unlabelled,
)
from search.errors import InvalidInput
from search.model.checkpoint import check_file_names, check_model_folder
from search.shape import ModelShape
from service import blobs
from service.db import epoch_now
from service.models import Upload, UploadFile
from service.problems import Conflict, NotFound
from service.schemas import NewUpload
from service.store.protocol import ArtifactStore

MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".md")
MODEL_KINDS = ("model", "teacher")
ABANDONED_SECONDS = 24 * 3600.0


def create_upload(session: Session, new: NewUpload) -> Upload:
    """An open upload that waits for its files.

    Raises:
        InvalidInput: the names alone show that this is no model or no data.
    """
    names = [file.name for file in new.files]
    summary: dict[str, Any] | None = None
    if new.kind in MODEL_KINDS:
        _check_model_names(names)
        summary = None if new.kind == "model" else {"task": new.task}
    else:
        is_labelled = new.kind == "dataset"
        known = formats(new.task, is_labelled=is_labelled)
        if len(names) != 1 or PurePath(names[0]).suffix.lower() not in known:
            raise InvalidInput("files", f"must be one file that ends in {' or '.join(known)}")
        columns = columns_of(new.task, new.columns, is_labelled=is_labelled)
        summary = {"task": new.task, **columns}
    upload = Upload(kind=new.kind, summary=summary)
    session.add(upload)
    session.flush()
    blobs.take_all(session, (file.sha256 for file in new.files))
    session.add_all(UploadFile(upload_id=upload.id, **file.model_dump()) for file in new.files)
    session.flush()
    session.refresh(upload)
    return upload


def get_upload(session: Session, upload_id: str) -> Upload:
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise NotFound("upload", upload_id)
    return upload


def files_of(session: Session, upload_id: str) -> list[UploadFile]:
    query = select(UploadFile).where(UploadFile.upload_id == upload_id)
    return list(session.scalars(query.order_by(UploadFile.name)))


def expected_file(session: Session, upload_id: str, name: str) -> UploadFile:
    """The declared file that is about to arrive."""
    upload = get_upload(session, upload_id)
    if upload.state != "open":
        raise Conflict(f"upload {upload_id!r} is {upload.state} and takes no more files")
    file = session.get(UploadFile, (upload_id, name))
    if file is None:
        raise NotFound("declared file", name)
    return file


def check_upload(session: Session, store: ArtifactStore, upload: Upload) -> dict[str, Any]:
    """Read everything that was uploaded; the summary that is to be stored with it.

    Raises:
        InvalidInput: with what is wrong; the caller then drops the upload.
        Conflict: a file has not arrived yet.
    """
    files = files_of(session, upload.id)
    missing = [file.name for file in files if not store.exists(file.sha256)]
    if missing:
        raise Conflict(f"not received yet: {', '.join(missing)}")
    if upload.kind == "model":
        checked = check_model(store, files)
        shape = checked.to_dict()
        if checked.task not in ("language-modelling", "sentence-embedding"):
            del shape["num_labels"]  # the data decide
        return {"shape": shape, "size_bytes": sum(file.size_bytes for file in files)}
    known = dict(upload.summary or {})
    task = known.pop("task", "text-classification")
    if upload.kind == "teacher":
        facts = teacher_facts(store, files, task)
        return {"task": task, "shape": facts.shape.to_dict(), "labels": list(facts.label_names)}
    read = read_labelled if upload.kind == "dataset" else read_without_labels
    return {"task": task, **known, **read(store, files[0], task, known).summary()}


def read_labelled(
    store: ArtifactStore, file: UploadFile, task: str, columns: Mapping[str, str | None]
) -> Dataset:
    return read_dataset(store.path(file.sha256), task=task, columns=columns, name=file.name)


def read_without_labels(
    store: ArtifactStore, file: UploadFile, task: str, columns: Mapping[str, str | None]
) -> Unlabelled:
    return read_unlabelled(store.path(file.sha256), task=task, columns=columns, name=file.name)


def ready_upload(session: Session, upload_id: str, field: str, *kinds: str) -> Upload:
    """A finished upload of one of these kinds.

    Raises:
        InvalidInput: of `field`, when there is none.
    """
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise InvalidInput(field, f"there is no upload {upload_id!r}")
    if upload.kind not in kinds:
        wanted = " or ".join(map(repr, kinds))
        raise InvalidInput(
            field, f"must be an upload of kind {wanted}, is of kind {upload.kind!r}"
        )
    if upload.state != "ready":
        raise InvalidInput(field, f"upload {upload_id!r} is {upload.state}; finalize it first")
    return upload


def delete_upload(session: Session, upload_id: str) -> list[str]:
    """Delete the rows; return the blobs that had a name by them, for `delete_unnamed` after the
    commit."""
    hashes = [file.sha256 for file in files_of(session, upload_id)]
    session.execute(delete(UploadFile).where(UploadFile.upload_id == upload_id))
    session.execute(delete(Upload).where(Upload.id == upload_id))
    session.flush()
    return sorted(set(hashes))


def is_abandoned() -> ColumnElement[bool]:
    return and_(Upload.state == "open", Upload.created_at < epoch_now() - ABANDONED_SECONDS)


def delete_abandoned(session: Session) -> list[str]:
    """Drop uploads that were begun and never finished."""
    query = select(Upload.id).where(is_abandoned())
    return [sha256 for old in session.scalars(query) for sha256 in delete_upload(session, old)]


def _check_model_names(names: list[str]) -> None:
    check_file_names(names)
    for name in names:
        if PurePath(name).suffix.lower() not in MODEL_SUFFIXES:
            raise InvalidInput(name, f"is not needed; files end in {', '.join(MODEL_SUFFIXES)}")


def check_model(
    store: ArtifactStore, files: list[UploadFile], task: str | None = None
) -> ModelShape:
    """Raises: InvalidInput when the files are no model, or none for the task."""
    with _folder_of(store, files) as folder:
        return check_model_folder(folder, task=task).shape


def teacher_facts(store: ArtifactStore, files: list[UploadFile], task: str) -> TeacherFacts:
    """Raises: InvalidInput when the files are no model that could teach the task."""
    with _folder_of(store, files) as folder:
        return read_facts(folder, task)


@contextmanager
def _folder_of(store: ArtifactStore, files: list[UploadFile]) -> Iterator[Path]:
    """The files by their names, as links into the store."""
    with tempfile.TemporaryDirectory(prefix="snugnet-model-") as folder:
        for file in files:
            (Path(folder) / file.name).symlink_to(store.path(file.sha256))
        yield Path(folder)
