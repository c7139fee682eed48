"""When a device is due to be measured again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from predictors.device import Device as DeviceIdentity
from predictors.key import predictor_key, shape_key
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from predictors.workload import Workload
from service.database.db import Database, epoch_now
from service.database.models import Device, Job, MeasurementRow
from service.devices import measurement_jobs
from service.devices.drift_checks import schedule_checks
from service.devices.predictor_store import save_predictor
from service.jobs import jobs
from service.jobs.job_states import conclude_job
from service.steps.step_types import NewMeasurement
from tests.service.helpers import create_device
from tests.service.measuring import IDENTITY, SHAPE, WORKLOAD, answer, measuring_spec, subnet

HOURS = 24.0


@pytest.fixture
def device_id(database: Database) -> str:
    """Measured a moment ago, with a predictor in each precision."""
    device_id = create_device(database).id
    spec = measuring_spec()
    with database.write() as session:
        new = NewMeasurement(device_id=device_id, spec=spec.to_dict())
        measurement_jobs.create(session, new, job_id=None)
        lease = measurement_jobs.claim(session, device_id, "agent", 60.0)
        assert lease is not None
        measurement_jobs.complete(session, lease.id, lease.token, answer(spec))
        for precision in ("fp32", "int8"):
            predictor = fitted(precision)
            save_predictor(
                session,
                device_id,
                key=predictor.key,
                shape_key=shape_key(SHAPE),
                payload=predictor.to_json(),
                fit_report={},
            )
    return device_id


def fitted(
    precision: str, workload: Workload = WORKLOAD, runtime_version: str | None = None
) -> LatencyPredictor:
    rows = [
        LatencyRow(
            subnet=subnet(1, precision, width),
            batch_size=1,
            seq_len=8,
            median_ms=1 + width / 8,
            p95_ms=2 + width / 8,
            anchors_ms=(10.0,),
        )
        for width in (8, 16, 24, 32)
    ]
    runtimes = dict(IDENTITY["runtimes"])
    if runtime_version is not None:
        runtimes[workload.runtime] = {"version": runtime_version, "precisions": [precision]}
    identity = DeviceIdentity.from_dict({**IDENTITY, "runtimes": runtimes})
    key = predictor_key(identity, workload, precision)
    return LatencyPredictor.fit(rows, key=key, shape=SHAPE, macs_per_byte=4.0)


def days_pass(database: Database, days: float = 2.0) -> None:
    with database.write() as session:
        session.execute(update(MeasurementRow).values(created_at=epoch_now() - 86_400 * days))


def checks(database: Database, hours: float = HOURS) -> list[str]:
    with database.write() as session:
        return schedule_checks(session, hours)


def spec_of(database: Database, job_ids: Iterable[str]) -> dict[str, Any]:
    (job_id,) = job_ids
    with database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job.spec


def test_a_device_measured_lately_is_left_alone(database: Database, device_id: str) -> None:
    assert checks(database) == []
    with database.read() as session:
        assert jobs.list_jobs(session, kind=jobs.ONBOARDING, device_id=device_id) == []


def test_a_device_not_measured_for_long_is_checked_once(
    database: Database, device_id: str
) -> None:
    days_pass(database)
    created = checks(database)
    spec = spec_of(database, created)
    assert (spec["mode"], spec["device"]) == ("check", device_id)
    assert spec["space"]["precision"] == ["fp32", "int8"]
    assert spec["workload"]["seq_len"] == WORKLOAD.seq_len
    assert checks(database) == []  # one is open already
    with database.write() as session:
        conclude_job(session, created[0], "succeeded", result={})


def test_a_check_that_failed_is_not_repeated_before_the_next_is_due(
    database: Database, device_id: str
) -> None:
    assert device_id
    days_pass(database)
    (first,) = checks(database)
    with database.write() as session:
        conclude_job(session, first, "failed", code="no_agent", message="nobody came")
    assert checks(database) == []
    with database.write() as session:
        session.execute(update(Job).values(created_at=epoch_now() - 3600 * (HOURS + 1)))
    assert len(checks(database)) == 1


def test_what_a_device_has_lost_does_not_keep_the_rest_from_being_checked(
    database: Database, device_id: str
) -> None:
    """Its fingerprint names no runtimes, so that the predictor of the lost one is still its."""
    lost = fitted("fp32", replace(WORKLOAD, runtime="openvino"), runtime_version="2026.4")
    with database.write() as session:
        save_predictor(
            session,
            device_id,
            key=lost.key,
            shape_key=shape_key(SHAPE),
            payload=lost.to_json(),
            fit_report={},
        )
    days_pass(database)
    assert spec_of(database, checks(database))["workload"]["runtime"] == "onnxruntime"


@pytest.mark.parametrize("change", [{"retired_at": 1.0}, {"last_seen_at": 1.0}])
def test_a_device_that_is_away_or_retired_is_not_checked(
    database: Database, device_id: str, change: dict[str, float]
) -> None:
    days_pass(database)
    with database.write() as session:
        session.execute(update(Device).where(Device.id == device_id).values(**change))
    assert checks(database) == []


def test_a_device_that_has_changed_is_not_checked_against_its_former_self(
    database: Database, device_id: str
) -> None:
    days_pass(database)
    with database.write() as session:
        session.execute(update(Device).where(Device.id == device_id).values(fingerprint="new"))
    assert checks(database) == []


def test_no_check_is_made_where_they_are_switched_off(database: Database, device_id: str) -> None:
    days_pass(database)
    assert device_id
    assert checks(database, hours=0) == []
