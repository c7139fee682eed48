"""What a job file may hold, from the models that check it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from service.jobs import jobfile
from service.jobs.job_spec import JobSpec
from service.reference.json_schema import Schemas, fields_of
from service.reference.markdown import code, page, prose, table

INTRODUCTION = """\
A job as `snugnet submit` takes it, in YAML or JSON. A key that is not known is an error that
names it. With `upload` in place of paths the same keys are the body of `POST /v1/search-jobs`."""

SOURCES = {
    "ModelSource": "_ModelSource",
    "DataSource": "_DataSource",
    "TeacherSource": "_ModelSource",
    "UnlabelledSource": "_UnlabelledSource",
}
SOURCE_KEYS = {
    "path": "A folder (of a model) or file (of data), relative to the job file.",
    "hub": "`org/name` on a public hub, which the server fetches where its operator allows it.",
    "revision": "Commit, branch or tag on the hub; `main` if left out.",
    "file": "The one file of a data set's repository.",
    "upload": "Id of a finished upload, in place of the others.",
}
TITLES = {
    "WorkloadSpec": "workload",
    "TargetSpec": "targets",
    "SpaceSpec": "space",
    "TrainingSpec": "training",
    "LossSpec": "training.loss",
    "SearchSpec": "search",
    "MeasuringSpec": "measuring",
    "RobustnessSpec": "robustness",
    "CompressSpec": "compress",
    "ModelSource": "model",
    "DataSource": "data",
    "TeacherSource": "teachers",
    "UnlabelledSource": "unlabelled",
}


def document() -> str:
    schema = JobSpec.model_json_schema()
    schemas = Schemas(schema["$defs"], {name: _anchor(title) for name, title in TITLES.items()})
    parts = [INTRODUCTION, "## The job", prose(schema["description"]), fields_of(schema, schemas)]
    for name, title in sorted(TITLES.items(), key=lambda item: list(TITLES).index(item[0])):
        definition = schema["$defs"][name]
        parts += [f"## {title}", prose(definition.get("description", ""))]
        parts.append(_source(name) if name in SOURCES else fields_of(definition, schemas))
    parts += ["## Stages of compress", *_stages(schema["$defs"]["CompressSpec"], schemas)]
    return page("Job file", *parts)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9\-]", "", title.lower().replace(" ", "-"))


def _source(name: str) -> str:
    """As files have it, where a path or a hub may stand for an upload."""
    fields = getattr(jobfile, SOURCES[name]).model_fields
    names = [
        *(n for n in SOURCE_KEYS if n in fields),
        *(n for n in fields if n not in SOURCE_KEYS),
    ]
    rows = ((code(n), prose(SOURCE_KEYS.get(n) or fields[n].description or "")) for n in names)
    return table(("key", "is"), rows)


def _stages(compress: Mapping[str, Any], schemas: Schemas) -> Iterator[str]:
    for kind in compress["properties"]["stages"]["items"]["oneOf"]:
        yield f"### {kind['title']}"
        yield prose(kind["description"])
        yield fields_of(kind, schemas, leaving_out=("kind",))
