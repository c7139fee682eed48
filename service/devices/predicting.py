"""Latency of networks on a device, asked over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from predictors.bounds import read_shape
from predictors.device import Device as DeviceIdentity
from predictors.key import predictor_key, shape_key
from predictors.predictor import LatencyEstimate, LatencyPredictor
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.errors import InvalidInput
from search.space import SubnetConfig
from service.database.models import Device
from service.devices import predictor_store
from service.devices.device_schemas import PredictedLatency, PredictedPage, Prediction
from service.devices.onboardings import read_subnets
from service.devices.predictor_store import StoredPredictor
from service.jobs.workloads import workload_for
from service.problems import NotFound, ProblemError


class NoPredictor(ProblemError):
    """The device was never onboarded for this."""

    code = "no_predictor"
    status = 404


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    workload: Workload
    subnets: Sequence[SubnetConfig]
    stored: Sequence[StoredPredictor]


def predict(session: Session, device: Device, asked: Prediction) -> PredictedPage:
    """Raises:
    InvalidInput: a network lies outside of the shape, or the workload is not the predictor's.
    NotFound: there is no such predictor.
    NoPredictor: none fits; the device has to be onboarded first.
    """
    by_id = asked.predictor is not None
    found = _by_id(session, device, asked) if by_id else _newest(session, device, asked)
    predictor = WorkloadPredictor(found.workload, [_load(stored) for stored in found.stored])
    estimate = predictor.predict(found.subnets, asked.statistic)
    items = [_item(predictor, estimate, i, s) for i, s in enumerate(found.subnets)]
    return PredictedPage(items=items, predictors=[stored.id for stored in found.stored])


def _by_id(session: Session, device: Device, asked: Prediction) -> _Asked:
    assert asked.predictor is not None
    stored = predictor_store.get_predictor(session, device.id, asked.predictor)
    if stored is None:
        raise NotFound("predictor", asked.predictor)
    predictor = _load(stored)
    workload = workload_for(asked.workload, predictor.shape)
    subnets = read_subnets(asked.subnets, predictor.shape)
    key = predictor.key
    if key.quantity != "latency":
        raise InvalidInput("predictor", f"is of {key.quantity}, not of latency")
    for name in ("runtime", "provider", "threads", "phase"):
        if getattr(key, name) != getattr(workload, name):
            raise InvalidInput(f"workload.{name}", f"this predictor is of {getattr(key, name)!r}")
    for i, subnet in enumerate(subnets):
        if subnet.precision != key.precision or subnet.float_layers:
            raise InvalidInput(
                f"subnets[{i}].precision", f"this predictor is of {key.precision!r}"
            )
    return _Asked(workload=workload, subnets=subnets, stored=[stored])


def _newest(session: Session, device: Device, asked: Prediction) -> _Asked:
    shape = read_shape(asked.shape)
    workload = workload_for(asked.workload, shape)
    subnets = read_subnets(asked.subnets, shape)
    identity = DeviceIdentity.from_dict(device.identity)
    identity.require(workload)
    found = []
    used = {subnet.precision_of(layer) for subnet in subnets for layer in subnet.layers}
    for precision in sorted(used | {subnet.precision for subnet in subnets}):
        key = predictor_key(identity, workload, precision)
        stored = predictor_store.find_predictor(session, device.id, key.text, shape_key(shape))
        if stored is None:
            raise NoPredictor(
                f"{device.name!r} has no predictor of this shape in {precision} with "
                f"{workload.runtime} ({workload.provider}, {workload.threads} threads); "
                "onboard it first"
            )
        found.append(stored)
    return _Asked(workload=workload, subnets=subnets, stored=found)


def _load(stored: StoredPredictor) -> LatencyPredictor:
    try:
        return LatencyPredictor.from_json(stored.payload)
    except InvalidInput as error:
        raise NoPredictor(f"{stored.id} is of another version; onboard again ({error})") from None


def _item(
    predictor: WorkloadPredictor, estimate: LatencyEstimate, i: int, subnet: SubnetConfig
) -> PredictedLatency:
    return PredictedLatency(
        mean_ms=float(estimate.mean_ms[i]),
        lower_ms=float(estimate.lower_ms[i]),
        upper_ms=float(estimate.upper_ms[i]),
        extrapolating=bool(estimate.extrapolates[i]),
        breakdown=predictor.explain(subnet),
    )
