"""May this job run here? What a spec alone cannot tell: its uploads, its device, its space."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from predictors.key import predictor_key, shape_key
from predictors.predictor import LatencyPredictor, anchors_by_size
from predictors.reach import fastest_ms, resolve_budget
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.errors import BudgetUnreachable, InvalidInput
from search.shape import ModelShape
from search.space import SearchSpace
from service.artifacts import ArtifactStore
from service.devices import find_device, list_devices
from service.models import Device as DeviceRow
from service.models import Upload
from service.onboardings import check_space, identity_of
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
    check_space(spec.space, shape)
    _check_budgets(session, spec, shape)


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
    if device.retired_at is not None:
        raise InvalidInput("targets[0].device", f"{device.name!r} was retired")
    if spec.workload.runtime == "torch":
        raise InvalidInput(
            "targets[0].workload.runtime",
            "the files of a search are ONNX, which torch does not run; choose onnxruntime or "
            "openvino (in torch a device can be onboarded)",
        )
    try:
        workload = Workload.from_dict(spec.workload.model_dump())
        identity_of(device).require(workload, tuple(spec.space.precision or ()))
    except InvalidInput as error:
        places = {"precision": "space.precision"}
        field = places.get(error.field, f"targets[0].{error.field}")
        raise InvalidInput(field, error.reason) from None


def space_of(spec: JobSpec, shape: ModelShape) -> SearchSpace:
    """The job's space; where it does not choose precisions, all that its runtime builds."""
    workload = Workload.from_dict(spec.workload.model_dump())
    choices = {"precision": list(workload.precisions), **spec.space.choices}
    return SearchSpace.for_shape(shape).with_choices(choices)


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


def _check_budgets(session: Session, spec: JobSpec, shape: ModelShape) -> None:
    """With a predictor of an earlier job at hand, refuse what no network could keep.

    Without one the job itself finds out, before it trains anything.
    """
    device = find_device(session, spec.device)
    assert device is not None, "checked before"
    space = space_of(spec, shape)
    predictor = _fresh_predictor(session, device, spec, shape, space)
    if predictor is None:
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


def _fresh_predictor(
    session: Session, device: DeviceRow, spec: JobSpec, shape: ModelShape, space: SearchSpace
) -> WorkloadPredictor | None:
    workload = Workload.from_dict(spec.workload.model_dump())
    identity = identity_of(device)
    found = []
    for precision in space.precision:
        key = predictor_key(identity, workload, precision)
        stored = find_predictor(session, device.id, key.text, shape_key(shape))
        if stored is None or stored.created_at < time.time() - FRESH_SECONDS:
            return None
        try:
            predictor = LatencyPredictor.from_json(stored.payload)
        except InvalidInput:
            return None  # of another version: the job fits a new one
        size = workload.batch_size, workload.seq_len
        if size not in anchors_by_size(predictor.rows):
            return None
        found.append(predictor)
    return WorkloadPredictor(workload, found)
