"""Devices that are online are measured again now and then: a predictor grows old."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from predictors.key import shape_key
from predictors.predictor import LatencyPredictor
from predictors.workload import Workload
from search.errors import InvalidInput
from search.shape import ModelShape
from service.database.db import epoch_now
from service.database.models import Device, Job, MeasurementRow
from service.devices.device_schemas import OnboardingRequest, OnboardingSpec
from service.devices.devices import was_heard
from service.devices.onboardings import create_onboarding
from service.devices.predictor_store import list_predictors
from service.jobs import jobs
from service.jobs.job_states import ACTIVE
from service.jobs.workloads import workload_for

CHECK_INTERVAL_SECONDS = 60.0  # of looking whether a check is due


Group = tuple[str, str, int, str, str]
"""Runtime, provider, threads, phase, key of the shape."""


@dataclass(slots=True)
class _Known:
    """What is known of one shape in one runtime: predictors that differ in precision alone."""

    newest: LatencyPredictor
    keys: set[str] = field(default_factory=set)
    precisions: set[str] = field(default_factory=set)


def schedule_checks(session: Session, hours: float) -> list[str]:
    """Ids of the onboardings that were created: at most one for each device, for what has not
    been measured for the longest time."""
    if hours == 0:
        return []
    created = []
    online = select(Device).where(Device.retired_at.is_(None), was_heard())
    # Another process may be looking too: whoever locks a device first checks it.
    for device in session.scalars(online.order_by(Device.id).with_for_update(skip_locked=True)):
        if not _is_busy(session, device.id):
            created += _check(session, device, 3600 * hours)
    return created


def _check(session: Session, device: Device, seconds: float) -> list[str]:
    since = session.execute(select(epoch_now())).scalar_one() - seconds
    groups = _groups(session, device)
    last = {group: _last_measured(session, known.keys) for group, known in groups.items()}
    tried = _groups_tried(session, device, since)
    due = [group for group, at in last.items() if at < since and group not in tried]
    for group in sorted(due, key=lambda group: last[group]):
        try:
            return [create_onboarding(session, device, _request(groups[group])).id]
        except InvalidInput:
            continue  # the device no longer has that runtime: there is nothing to check
    return []


def _groups(session: Session, device: Device) -> dict[Group, _Known]:
    """Of the device as it is now: what another fingerprint measured cannot be checked."""
    groups: dict[Group, _Known] = {}
    for stored in list_predictors(session, device.id, latest=True):  # the newest first
        try:
            predictor = LatencyPredictor.from_json(stored.payload)
        except InvalidInput:
            continue
        key = predictor.key
        if key.device_fingerprint != device.fingerprint:
            continue
        group = (key.runtime, key.provider, key.threads, key.phase, stored.shape_key)
        known = groups.setdefault(group, _Known(newest=predictor))
        known.keys.add(stored.predictor_key)
        known.precisions.add(key.precision)
    return groups


def _groups_tried(session: Session, device: Device, since: float) -> set[Group]:
    """Those of onboardings that were asked for since then, however they ended: one that failed
    before it measured would otherwise be tried again in every round."""
    query = select(Job.spec).where(
        Job.kind == jobs.ONBOARDING,
        Job.created_at >= since,
        Job.spec["device"].as_string() == device.id,
    )
    groups = set()
    for data in session.scalars(query):
        spec = OnboardingSpec.model_validate(data)
        if spec.shape is not None:
            shape = ModelShape.from_dict(spec.shape)
            asked = workload_for(spec.workload, shape)
            group = (asked.runtime, asked.provider, asked.threads, asked.phase)
            groups.add((*group, shape_key(shape)))
    return groups


def _last_measured(session: Session, keys: Iterable[str]) -> float:
    newest = session.execute(
        select(func.max(MeasurementRow.created_at)).where(MeasurementRow.predictor_key.in_(keys))
    ).scalar_one()
    return 0.0 if newest is None else float(newest)


def _request(known: _Known) -> OnboardingRequest:
    predictor = known.newest
    row, key = predictor.rows[-1], predictor.key
    workload = Workload(
        batch_size=row.batch_size,
        seq_len=row.seq_len,
        threads=key.threads,
        runtime=key.runtime,
        provider=key.provider,
        phase=key.phase,
    )
    return OnboardingRequest.model_validate(
        {
            "shape": predictor.shape.to_dict(),
            "space": {"precision": sorted(known.precisions)},
            "workload": {k: v for k, v in workload.to_dict().items() if k != "phase"},
            "mode": "check",
        }
    )


def _is_busy(session: Session, device_id: str) -> bool:
    """Whether it is being onboarded already."""
    query = select(Job.id).where(
        Job.kind == jobs.ONBOARDING,
        Job.state.in_(ACTIVE),
        Job.spec["device"].as_string() == device_id,
    )
    return session.execute(query.limit(1)).first() is not None
