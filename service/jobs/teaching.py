"""What a job's stages learn from beside its model and data: can it teach, as far as can be known
before a worker reads it?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from search.compress.configs import DistillConfig, DistillRelationsConfig
from search.compress.teacher_facts import TeacherFacts, check_pieces
from search.data.images import check_image_size
from search.data.labels import in_order
from search.errors import InvalidInput
from search.model.checkpoint import TOKENIZER_FILE
from search.shape import ModelShape
from service.jobs.compress_spec import teacher_of
from service.jobs.job_spec import JobSpec
from service.store.protocol import ArtifactStore
from service.uploads.checks.contents import read_rows, teacher_facts
from service.uploads.checks.reading import Inspect, read_here
from service.uploads.uploads import MODEL_KINDS, files_of, ready_upload


def check_teaching(
    session: Session,
    store: ArtifactStore,
    spec: JobSpec,
    shape: ModelShape,
    data_summary: Mapping[str, Any],
    inspect: Inspect = read_here,
) -> None:
    """Raises: InvalidInput for a teacher that does other things than the model, or rows that the
    model does not read."""
    label_names = _label_names(data_summary)
    if label_names:
        shape = replace(shape, num_labels=len(label_names))
    for name, source in spec.teachers.items():
        field = f"teachers.{name}"
        upload = ready_upload(session, source.upload, f"{field}.upload", *MODEL_KINDS)
        try:
            facts = teacher_facts(store, files_of(session, upload.id), spec.task)
        except InvalidInput as error:
            raise InvalidInput(field, str(error)) from None
        facts.check_input(field, shape)
        if facts.tokenizer is not None:
            check_pieces(field, facts.tokenizer, _tokenizer(session, store, spec))
        check_for_stages(spec, name, facts, shape, label_names)
    _check_unlabelled(session, store, spec, shape, inspect)


def check_for_stages(
    spec: JobSpec, name: str, facts: TeacherFacts, shape: ModelShape, label_names: tuple[str, ...]
) -> None:
    """Raises: InvalidInput where a teacher lacks what a stage is to learn from it."""
    for place, stage in enumerate(spec.compress.recipe.stages):
        if teacher_of(stage) != name:
            continue
        if isinstance(stage, DistillConfig) and stage.soft:
            facts.check_answers(f"teachers.{name}", shape, label_names)
        if isinstance(stage, DistillConfig) and stage.attention:
            facts.check_attention(f"teachers.{name}")
        depth = facts.shape.num_layers
        if isinstance(stage, DistillRelationsConfig) and stage.teacher_layer > depth:
            raise InvalidInput(
                f"compress.stages[{place}].teacher_layer",
                f"must be at most {depth}, the last of {name!r}, got {stage.teacher_layer}",
            )


def _check_unlabelled(
    session: Session, store: ArtifactStore, spec: JobSpec, shape: ModelShape, inspect: Inspect
) -> None:
    source = spec.unlabelled
    if source is None:
        return
    upload = ready_upload(session, source.upload, "unlabelled.upload", "unlabelled")
    summary = read_rows(session, store, upload, spec.task, source.columns, inspect)
    if shape.reads_images:
        check_image_size(summary, shape, "unlabelled.image")


def _label_names(data_summary: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order in which the data have them, whatever the database made of it."""
    known = data_summary.get("rows_by_label") or data_summary.get("words_by_label") or {}
    return in_order(known)


def _tokenizer(session: Session, store: ArtifactStore, spec: JobSpec) -> dict[str, Any]:
    files = {file.name: file.sha256 for file in files_of(session, spec.model.upload)}
    found: dict[str, Any] = json.loads(store.path(files[TOKENIZER_FILE]).read_bytes())
    return found
