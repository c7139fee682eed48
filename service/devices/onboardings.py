"""What may be asked of a device: checked before an agent ever sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from predictors.bounds import check_subnet, read_shape
from predictors.device import Device as DeviceIdentity
from predictors.measurement import as_subnet
from predictors.spec import REFERENCE_KEY, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import PRECISIONS, SearchSpace, SubnetConfig
from service.database.models import Device, Job, MeasurementJob, Upload
from service.devices import measurement_jobs
from service.devices.device_schemas import (
    MeasureRequest,
    OnboardingRequest,
    OnboardingSpec,
)
from service.jobs import jobs
from service.jobs.job_spec import SpaceSpec, WorkloadSpec
from service.jobs.workloads import workload_for
from service.steps.step_types import NewMeasurement, NewStep

NUM_LABELS = 2  # of an upload, whose data are unknown; no latency hangs on it


def create_onboarding(session: Session, device: Device, request: OnboardingRequest) -> Job:
    """A queued onboarding.

    Raises:
        InvalidInput: the device cannot do it, or the model is smaller than the space.
    """
    shape = _shape(session, request)
    check_space(request.space, shape)
    workload = read_workload(device, request.workload, shape)
    precisions = _precisions(device, workload, request.space)
    asked = request.model_dump(mode="json")
    asked["space"]["precision"] = list(precisions)
    spec = OnboardingSpec.model_validate({**asked, "device": device.id})
    return jobs.create_job(
        session,
        spec.model_dump(mode="json"),
        name=f"onboarding of {device.name}",
        seed=spec.seed,
        tenant_id=device.tenant_id,
        first=NewStep(kind="onboarding"),
        kind=jobs.ONBOARDING,
    )


def create_measurement(
    session: Session, device: Device, request: MeasureRequest
) -> MeasurementJob:
    """Work for the device's agent that no job waits for.

    Raises:
        InvalidInput: the device cannot do it, or a network lies outside of the shape.
    """
    shape = read_shape(request.shape)
    workload = read_workload(device, request.workload, shape)
    subnets = read_subnets(request.subnets, shape)
    identity_of(device).require(workload, _used(subnets))
    networks = [NetworkSpec(key=f"u{i}", subnet=subnet) for i, subnet in enumerate(subnets)]
    spec = MeasuringSpec(
        workload=workload,
        shape=shape,
        reference=NetworkSpec(key=REFERENCE_KEY, subnet=SubnetConfig.full(shape)),
        networks=tuple(networks),
        rounds=request.rounds,
        repeats=request.repeats,
        seed=request.seed,
    )
    new = NewMeasurement(
        device_id=device.id,
        spec=spec.to_dict(),
        purposes={network.key: "user" for network in networks},
        agent_timeout_s=request.agent_timeout_s,
    )
    return measurement_jobs.create(session, new, job_id=None)


def read_workload(device: Device, asked: WorkloadSpec, shape: ModelShape) -> Workload:
    """Raises: InvalidInput when the device is retired or lacks the runtime or provider, with the
    reason that it gave, or when the model is too short for the sequences."""
    if device.retired_at is not None:
        raise InvalidInput("device", f"{device.name!r} was retired")
    workload = workload_for(asked, shape)
    identity_of(device).require(workload)
    return workload


def read_subnets(data: Sequence[dict[str, Any]], shape: ModelShape) -> list[SubnetConfig]:
    """Raises: InvalidInput naming the first that is none, or is larger than the shape."""
    subnets = [as_subnet(value, f"subnets[{i}]") for i, value in enumerate(data)]
    for i, subnet in enumerate(subnets):
        check_subnet(subnet, shape, f"subnets[{i}]")
    return subnets


def check_space(space: SpaceSpec, shape: ModelShape) -> None:
    """Raises: InvalidInput when a choice does not fit the model."""
    preset = SearchSpace.for_shape(shape, space.preset)
    try:
        preset.with_choices(space.choices).check_fits(shape)
    except InvalidInput as error:
        values = getattr(preset, error.field.removeprefix("space."), None)
        told = f"; the preset is {list(values)}" if isinstance(values, tuple) and values else ""
        raise InvalidInput(error.field, f"{error.reason}{told}") from None


def _shape(session: Session, request: OnboardingRequest) -> ModelShape:
    if request.shape is not None:
        return read_shape(request.shape)
    assert request.model is not None, "validated: one of the two is there"
    upload = session.get(Upload, request.model.upload)
    if upload is None or upload.kind != "model" or upload.state != "ready":
        raise InvalidInput("model.upload", f"{request.model.upload!r} is no finished model")
    return ModelShape.from_dict({**(upload.summary or {})["shape"], "num_labels": NUM_LABELS})


def _precisions(device: Device, workload: Workload, space: SpaceSpec) -> tuple[str, ...]:
    """Those of the space, or else all that the device's runtime does."""
    identity = identity_of(device)
    if space.precision is not None:
        try:
            identity.require(workload, tuple(space.precision))
        except InvalidInput as error:
            raise InvalidInput(f"space.{error.field}", error.reason) from None
        return tuple(space.precision)
    does = identity.runtime(workload.runtime).precisions
    found = tuple(p for p in PRECISIONS if p in does and p in workload.precisions)
    if not found:
        raise InvalidInput("workload.runtime", f"{workload.runtime} does no known precision there")
    return found


def _used(subnets: Sequence[SubnetConfig]) -> tuple[str, ...]:
    return tuple(p for p in PRECISIONS if any(subnet.precision == p for subnet in subnets))


def identity_of(device: Device) -> DeviceIdentity:
    return DeviceIdentity.from_dict(device.identity)
