"""Job files: a job spec in YAML or JSON, in which models and data may be paths on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from search.errors import InvalidInput
from service.client import Client
from service.job_spec import JobSpec
from service.schemas import DataColumns, InputColumns, Name, Strict, Upload
from service.validation import WrongField, field_errors

Model = TypeVar("Model", bound=BaseModel)

MAX_FILE_BYTES = 1024**2
# Stands in for an upload that is yet to be made while the rest of the spec is checked.
PENDING = "pending"


class _Source(Strict):
    upload: Name | None = None
    path: Name | None = None

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if (self.upload is None) == (self.path is None):
            raise WrongField("path", "give exactly one of path and upload")
        return self


class _ModelSource(_Source):
    pass


class _DataSource(_Source, DataColumns):
    pass


class _UnlabelledSource(_Source, InputColumns):
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """A checked job file. Paths in it are relative to the file's folder."""

    spec: JobSpec
    folder: Path
    model: _ModelSource
    data: _DataSource
    teachers: Mapping[str, _ModelSource]
    unlabelled: _UnlabelledSource | None

    def resolve(self, client: Client, say: Callable[[str], None] = lambda _: None) -> JobSpec:
        """Upload what is local; the spec as the server takes it."""
        task = self.spec.task

        def send_teacher(name: str, source: _ModelSource) -> str:
            field = f"teachers.{name}.path"
            return self._uploaded(
                source,
                f"the teacher {name}",
                say,
                lambda path: client.upload_folder(path, kind="teacher", task=task, field=field),
            )

        model = self._uploaded(self.model, "the model", say, client.upload_folder)
        data = self._uploaded(
            self.data,
            "the data",
            say,
            lambda path: client.upload_file(path, task=task, columns=self.data.columns),
        )
        changes = {
            "model": self.spec.model.model_copy(update={"upload": model}),
            "data": self.spec.data.model_copy(update={"upload": data}),
            "teachers": {
                name: source.model_copy(update={"upload": send_teacher(name, self.teachers[name])})
                for name, source in self.spec.teachers.items()
            },
        }
        if self.spec.unlabelled is not None:
            unlabelled = self.unlabelled
            assert unlabelled is not None
            upload = self._uploaded(
                unlabelled,
                "the rows without labels",
                say,
                lambda path: client.upload_file(
                    path, kind="unlabelled", task=task, columns=unlabelled.columns
                ),
            )
            changes["unlabelled"] = self.spec.unlabelled.model_copy(update={"upload": upload})
        return self.spec.model_copy(update=changes)

    def _uploaded(
        self,
        source: _Source,
        what: str,
        say: Callable[[str], None],
        send: Callable[[Path], Upload],
    ) -> str:
        """The id of its upload, which is made now where it is a path."""
        if source.path is None:
            assert source.upload is not None
            return source.upload
        say(f"uploading {what} from {source.path}")
        return send(self.folder / Path(source.path).expanduser()).id


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
