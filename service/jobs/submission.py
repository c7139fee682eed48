"""May this job run here? What a spec alone cannot tell: its uploads, its device, its space."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy.orm import Session

from predictors.key import predictor_key, shape_key
from predictors.predictor import LatencyPredictor, anchors_by_size
from predictors.reach import fastest_ms, resolve_budget
from predictors.workload_predictor import WorkloadPredictor
from search.compress.suitability import check_recipe_suits, check_stored
from search.data.images import check_image_size
from search.errors import BudgetUnreachable, InvalidInput
from search.export.formats import FORMATS
from search.shape import ModelShape
from search.space import SearchSpace
from service.database.models import Device as DeviceRow
from service.database.models import Upload
from service.devices.devices import find_device, list_devices
from service.devices.onboardings import check_space, identity_of
from service.devices.predictor_store import find_predictor
from service.devices.profiles import Profile, Profiles, profiles_of, space_of
from service.jobs.job_spec import JobSpec
from service.jobs.teaching import check_teaching
from service.jobs.warm_start import check_warm_start
from service.store.protocol import ArtifactStore
from service.uploads.checks.contents import check_model, read_rows
from service.uploads.checks.reading import Inspect, read_here
from service.uploads.uploads import files_of, ready_upload

FRESH_SECONDS = 24 * 3600.0
"""An older predictor refuses nothing: the device may have become faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What a spec comes to on this server.

    Attributes:
        predictors: of each profile; None where the job has to measure first.
        num_rows: of the data set.
    """

    spec: JobSpec
    shape: ModelShape
    profiles: Profiles
    space: SearchSpace
    predictors: tuple[WorkloadPredictor | None, ...]
    num_rows: int

    def able(self, target_index: int) -> list[WorkloadPredictor]:
        """Predictors of all of a target's profiles; none where one is missing."""
        places = self.profiles.of_target[target_index]
        known = [self.predictors[place] for place in places]
        able = [predictor for predictor in known if predictor is not None]
        return able if len(able) == len(known) else []

    def closest_ms(self, target_index: int) -> float | None:
        """Predicted latency of the fastest network; None where it has to be measured first."""
        statistic = self.spec.targets[target_index].statistic
        able = self.able(target_index)
        return min(fastest_ms(p, self.space, statistic) for p in able) if able else None

    def budget_ms(self, target_index: int) -> float | None:
        """None where it is a share of a latency that has to be measured first."""
        target, able = self.spec.targets[target_index], self.able(target_index)
        if not able:
            return target.budget_ms
        return resolve_budget(
            able[0], budget_ms=target.budget_ms, budget_ratio=target.budget_ratio
        )


def check_submission(
    session: Session, store: ArtifactStore, spec: JobSpec, inspect: Inspect = read_here
) -> Submission:
    """Args:
        inspect: reads uploads again that were not checked for the job's task.

    Raises:
        InvalidInput: for the first thing that would make the job fail later.
    """
    model = ready_upload(session, spec.model.upload, "model.upload", "model")
    data = ready_upload(session, spec.data.upload, "data.upload", "dataset")
    shape = _shape(session, store, model, spec.task, inspect)
    data_summary = read_rows(session, store, data, spec.task, spec.data.columns, inspect)
    if shape.reads_images:
        check_image_size(data_summary, shape)
    _check_length(spec, shape)
    profiles = _profiles(session, spec, shape)
    check_space(spec.space, shape)
    _check_recipe(spec, profiles, shape)
    check_teaching(session, store, spec, shape, data_summary, inspect)
    space = space_of(spec.space, shape, profiles.precisions)
    check_warm_start(session, spec, space)
    found = Submission(
        spec=spec,
        shape=shape,
        profiles=profiles,
        space=space,
        predictors=tuple(_fresh_predictor(session, p, shape, space) for p in profiles.all),
        num_rows=int(data_summary.get("num_rows", 0)),
    )
    _check_budgets(found)
    return found


def check_exports(spec: JobSpec) -> None:
    """For a server whose packages are its workers' too.

    Raises: InvalidInput for a format that needs others.
    """
    for index, name in enumerate(spec.exports):
        wanted = FORMATS[name]
        if wanted.missing:
            raise InvalidInput(
                f"exports[{index}]",
                f"{name} needs {', '.join(wanted.missing)}, not installed here: {wanted.advice}",
            )


def _shape(
    session: Session, store: ArtifactStore, model: Upload, task: str, inspect: Inspect
) -> ModelShape:
    known = (model.summary or {})["shape"]
    if known["task"] == task:
        return ModelShape.from_dict({"num_labels": 2, **known})
    return check_model(store, files_of(session, model.id), task, inspect)


def _profiles(session: Session, spec: JobSpec, shape: ModelShape) -> Profiles:
    """Raises: InvalidInput when a device is unknown, retired, or lacks what a target asks for."""
    for index, target in enumerate(spec.targets):
        field = f"targets[{index}].device"
        device = find_device(session, target.device)
        if device is None:
            known = ", ".join(repr(d.name) for d in list_devices(session)) or "none has registered"
            raise InvalidInput(
                field, f"there is no device {target.device!r}; known devices: {known}"
            )
        if device.retired_at is not None:
            raise InvalidInput(field, f"{device.name!r} was retired")
    profiles = profiles_of(spec, shape, lambda name: identity_of(_device(session, name)))
    for precision in spec.space.precision or ():
        if precision not in profiles.precisions:
            raise InvalidInput(
                "space.precision",
                f"no target's runtime does {precision}; they do {', '.join(profiles.precisions)}",
            )
    return profiles


def _check_recipe(spec: JobSpec, profiles: Profiles, shape: ModelShape) -> None:
    """Raises: InvalidInput naming the stage that the model cannot take, or whose weights no
    runtime of a target reads."""
    stages = spec.compress.recipe.stages
    try:
        check_recipe_suits(stages, shape)
        for index, places in enumerate(profiles.of_target):
            workloads = [profiles.all[place].workload for place in places]
            runtimes = {workload.runtime: workload.precisions for workload in workloads}
            check_stored(stages, runtimes, f"targets[{index}]")
    except InvalidInput as error:
        raise InvalidInput(f"compress.{error.field}", error.reason) from None


def _device(session: Session, name: str) -> DeviceRow:
    device = find_device(session, name)
    assert device is not None, "checked before"
    return device


def _check_length(spec: JobSpec, shape: ModelShape) -> None:
    length = spec.training.max_seq_len
    if length > shape.max_seq_len and not shape.reads_images:
        raise InvalidInput(
            "training.max_seq_len",
            f"must be at most {shape.max_seq_len}, the model's positions, got {length}",
        )


def _check_budgets(found: Submission) -> None:
    """With predictors of an earlier job at hand, refuse what no network could keep.

    Without them the job itself finds out, before it trains anything.
    """
    for index, target in enumerate(found.spec.targets):
        budget_ms, closest_ms = found.budget_ms(index), found.closest_ms(index)
        if budget_ms is not None and closest_ms is not None and budget_ms < closest_ms:
            # The same error as the job's own; over HTTP it names the field like any other.
            error = BudgetUnreachable(
                f"targets[{index}].{target.budget_field}", budget_ms, closest_ms
            )
            raise InvalidInput(error.field, error.reason)


def _fresh_predictor(
    session: Session, profile: Profile, shape: ModelShape, space: SearchSpace
) -> WorkloadPredictor | None:
    device, workload = _device(session, profile.device), profile.workload
    identity = identity_of(device)
    found = []
    for precision in space.precision:
        if precision not in workload.precisions:
            continue
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
    return WorkloadPredictor(workload, found) if found else None
