"""Job files: a job spec in YAML or JSON, in which models and data may be paths on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from search.errors import InvalidInput
from service.client import Client
from service.jobs.job_spec import DataSource, JobSpec, ModelSource, TeacherSource, UnlabelledSource
from service.schemas import DataColumns, InputColumns, Name, Strict
from service.uploads.upload_schemas import FileName, RepoName, Revision
from service.validation import WrongField, field_errors

Model = TypeVar("Model", bound=BaseModel)

MAX_FILE_BYTES = 1024**2
# Stands in for an upload that is yet to be made while the rest of the spec is checked.
PENDING = "pending"


class _Source(Strict):
    upload: Name | None = None
    path: Name | None = None
    hub: RepoName | None = None
    revision: Revision | None = None

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if sum(place is not None for place in (self.upload, self.path, self.hub)) != 1:
            raise WrongField("path", "give exactly one of path, hub and upload")
        for name in ("revision", "file"):
            if self.hub is None and getattr(self, name, None) is not None:
                raise WrongField(name, "is of a hub's repository, and none is given")
        return self


class _ModelSource(_Source):
    pass


class _DataSource(_Source, DataColumns):
    file: FileName | None = None


class _UnlabelledSource(_Source, InputColumns):
    file: FileName | None = None


_RowsSource = _DataSource | _UnlabelledSource
Known = TypeVar("Known", ModelSource, TeacherSource, DataSource, UnlabelledSource)
ModelKind = Literal["model", "teacher"]
RowsKind = Literal["dataset", "unlabelled"]
Say = Callable[[str], None]
MAIN = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """A checked job file. Paths in it are relative to the file's folder."""

    spec: JobSpec
    folder: Path
    model: _ModelSource
    data: _DataSource
    teachers: Mapping[str, _ModelSource]
    unlabelled: _UnlabelledSource | None

    def resolve(self, client: Client, say: Say = lambda _: None) -> JobSpec:
        """Upload what is local; the spec as the server takes it."""

        def with_model(known: Known, source: _ModelSource, kind: ModelKind, field: str) -> Known:
            upload = self._model(client, say, source, kind, field)
            return known.model_copy(update={"upload": upload})

        def with_rows(known: Known, source: _RowsSource, kind: RowsKind) -> Known:
            return known.model_copy(update={"upload": self._rows(client, say, source, kind)})

        changes: dict[str, Any] = {
            "model": with_model(self.spec.model, self.model, "model", "model"),
            "data": with_rows(self.spec.data, self.data, "dataset"),
            "teachers": {
                name: with_model(known, self.teachers[name], "teacher", f"teachers.{name}")
                for name, known in self.spec.teachers.items()
            },
        }
        if self.spec.unlabelled is not None:
            assert self.unlabelled is not None
            changes["unlabelled"] = with_rows(self.spec.unlabelled, self.unlabelled, "unlabelled")
        return self.spec.model_copy(update=changes)

    def _model(
        self, client: Client, say: Say, source: _ModelSource, kind: ModelKind, field: str
    ) -> str:
        """The id of its upload, which is made now unless there is one."""
        if source.upload is not None:
            return source.upload
        task, what = self.spec.task, f"the {field.replace('teachers.', 'teacher ')}"
        if source.hub is not None:
            _say_fetching(say, what, source)
            revision = source.revision or MAIN
            return client.upload_from_hub(source.hub, revision=revision, kind=kind, task=task).id
        path = self._local(say, what, source)
        return client.upload_folder(path, kind=kind, task=task, field=f"{field}.path").id

    def _rows(self, client: Client, say: Say, source: _RowsSource, kind: RowsKind) -> str:
        """The same of data."""
        if source.upload is not None:
            return source.upload
        task, columns = self.spec.task, source.columns
        what = "the data" if kind == "dataset" else "the rows without labels"
        if source.hub is not None:
            _say_fetching(say, what, source)
            return client.upload_from_hub(
                source.hub,
                revision=source.revision or MAIN,
                file=source.file,
                kind=kind,
                task=task,
                columns=columns,
            ).id
        path = self._local(say, what, source)
        return client.upload_file(path, kind=kind, task=task, columns=columns).id

    def _local(self, say: Say, what: str, source: _Source) -> Path:
        assert source.path is not None
        say(f"uploading {what} from {source.path}")
        return self.folder / Path(source.path).expanduser()


def _say_fetching(say: Say, what: str, source: _Source) -> None:
    say(f"the server fetches {what} from {source.hub}")


def load_job_file(path: Path) -> JobFile:
    """Read and check a job file, before anything is sent.

    Raises:
        InvalidInput: in one line, with the key at fault.
    """
    return parse_job(read_mapping(path), path.resolve().parent)


def parse_job(content: Mapping[str, Any], folder: Path) -> JobFile:
    """The same for a job that is not in a file; paths are relative to `folder`."""
    model = _check(_ModelSource, content.get("model"), "model")
    data = _check(_DataSource, content.get("data"), "data")
    teachers = {
        name: _check(_ModelSource, source, f"teachers.{name}")
        for name, source in _named(content.get("teachers")).items()
    }
    whole = {
        **content,
        "model": {"upload": model.upload or PENDING},
        "data": {"upload": data.upload or PENDING, **data.columns},
        "teachers": {name: {"upload": s.upload or PENDING} for name, s in teachers.items()},
    }
    unlabelled = None
    if content.get("unlabelled") is not None:
        unlabelled = _check(_UnlabelledSource, content["unlabelled"], "unlabelled")
        whole["unlabelled"] = {"upload": unlabelled.upload or PENDING, **unlabelled.columns}
    return JobFile(
        spec=_check(JobSpec, whole, ""),
        folder=folder,
        model=model,
        data=data,
        teachers=teachers,
        unlabelled=unlabelled,
    )


def _named(teachers: Any) -> Mapping[str, Any]:
    if teachers is None:
        return {}
    if not isinstance(teachers, dict) or not all(isinstance(name, str) for name in teachers):
        raise InvalidInput("teachers", "must hold names, such as `large: {path: ./large-model}`")
    return {name.strip(): source for name, source in teachers.items()}


def _check(kind: type[Model], value: Any, field: str) -> Model:
    if value is None:
        raise InvalidInput(field, "is missing")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = field_errors(error.errors(), kind)[0]
        nested = "" if first.field == "body" else first.field
        raise InvalidInput(".".join(filter(None, (field, nested))), first.reason) from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Of a YAML file, or of a JSON file by its suffix.

    Raises:
        InvalidInput: it cannot be read, or holds something else; the file is the field.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInput(str(path), f"has more than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise InvalidInput(str(path), error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise InvalidInput(str(path), "is not UTF-8") from None
    except yaml.YAMLError as error:
        raise InvalidInput(str(path), f"is not valid YAML: {_one_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(str(path), f"is not valid JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInput(str(path), "must hold keys and values, such as `targets: [...]`")
    return content


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
