"""May this job run here? What a spec alone cannot tell: its uploads, its device, its space."""

from __future__ import annotations

import time
from dataclasses import replace

from sqlalchemy.orm import Session

from predictors.predictor import LatencyPredictor, predictor_key
from predictors.reach import fastest_ms, resolve_budget
from predictors.workload import Workload
from search.errors import BudgetUnreachable, InvalidInput
from search.space import ModelShape, SearchSpace
from service.artifacts import ArtifactStore
from service.devices import find_device, list_devices
from service.models import Upload
from service.predictor_store import find_predictor
from service.schemas import JobSpec
from service.uploads import files_of, read_upload

FRESH_SECONDS = 24 * 3600.0
"""An older predictor refuses nothing: the device may have become faster."""


def check_submission(session: Session, store: ArtifactStore, spec: JobSpec) -> None:
    """Raises: InvalidInput for the first thing that would make the job fail later."""
    model = _ready_upload(session, spec.model.upload, "model", "model.upload")
    data = _ready_upload(session, spec.data.upload, "dataset", "data.upload")
    _check_device(session, spec)
    columns = data.summary or {}
    if (columns.get("text"), columns.get("label")) != (spec.data.text, spec.data.label):
        file = files_of(session, data.id)[0]
        read_upload(store, file, text=spec.data.text, label=spec.data.label)
    shape = ModelShape.from_dict({**(model.summary or {})["shape"], "num_labels": 2})
    _check_lengths(spec, shape)
    _check_space(spec, shape)
    _check_budgets(session, spec, shape, num_labels=int(columns["num_labels"]))


def _ready_upload(session: Session, upload_id: str, kind: str, field: str) -> Upload:
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise InvalidInput(field, f"there is no upload {upload_id!r}")
    if upload.kind != kind:
        raise InvalidInput(field, f"must be an upload of kind {kind!r}, this is a {upload.kind}")
    if upload.state != "ready":
        raise InvalidInput(field, f"upload {upload_id!r} is {upload.state}; finalize it first")
    return upload


def _check_device(session: Session, spec: JobSpec) -> None:
    device = find_device(session, spec.device)
    if device is None:
        known = ", ".join(repr(d.name) for d in list_devices(session)) or "none has registered"
        raise InvalidInput(
            "targets[0].device", f"there is no device {spec.device!r}; known devices: {known}"
        )
    runtimes = device.identity.get("runtimes") or {}
    runtime = spec.workload.runtime
    if runtime not in runtimes:
        raise InvalidInput(
            "targets[0].workload.runtime",
            f"device {device.name!r} has no runtime {runtime!r}; it has "
            f"{', '.join(map(repr, sorted(runtimes))) or 'none'}",
        )


def _check_lengths(spec: JobSpec, shape: ModelShape) -> None:
    lengths = {
        "targets[0].workload.seq_len": spec.workload.seq_len,
        "training.max_seq_len": spec.training.max_seq_len,
    }
    for field, length in lengths.items():
        if length > shape.max_seq_len:
            raise InvalidInput(
                field, f"must be at most {shape.max_seq_len}, the model's positions, got {length}"
            )


def _check_space(spec: JobSpec, shape: ModelShape) -> None:
    largest = SearchSpace.for_shape(shape)
    for gene, limit in (
        ("num_layers", shape.num_layers),
        ("num_heads", shape.num_heads),
        ("ffn_dim", shape.ffn_dim),
    ):
        values = getattr(spec.space, gene)
        if values is not None and values[-1] > limit:
            raise InvalidInput(
                f"space.{gene}",
                f"the model has {limit}, got {values[-1]}; the preset is "
                f"{list(getattr(largest, gene))}",
            )


def _check_budgets(session: Session, spec: JobSpec, shape: ModelShape, *, num_labels: int) -> None:
    """With a predictor of an earlier job at hand, refuse what no network could keep.

    Without one the job itself finds out, before it trains anything.
    """
    device = find_device(session, spec.device)
    assert device is not None, "checked before"
    workload = Workload.from_dict(spec.workload.model_dump())
    stored = find_predictor(
        session, device.id, predictor_key(replace(shape, num_labels=num_labels), workload)
    )
    if stored is None or stored.created_at < time.time() - FRESH_SECONDS:
        return
    predictor = LatencyPredictor.from_json(stored.payload)
    space = SearchSpace.for_shape(shape).with_choices(spec.space.choices)
    if not set(space.precision) <= set(predictor.precisions):
        return
    for index, target in enumerate(spec.targets):
        budget_ms = resolve_budget(
            predictor, budget_ms=target.budget_ms, budget_ratio=target.budget_ratio
        )
        closest_ms = fastest_ms(predictor, space, target.statistic)
        if budget_ms < closest_ms:
            # The same error as the job's own; over HTTP it names the field like any other.
            error = BudgetUnreachable(
                f"targets[{index}].{target.budget_field}", budget_ms, closest_ms
            )
            raise InvalidInput(error.field, error.reason)
