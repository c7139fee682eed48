"""Onboardings over HTTP: refused where they cannot work, never silent where nobody answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.client import Client, NotFound, Rejected
from service.database.db import Database
from service.database.models import Device, Job, MeasurementJob
from service.devices import measurement_jobs
from service.devices.device_schemas import OnboardingSpec
from service.jobs import jobs
from service.jobs.events import list_events
from service.schemas import JobState
from service.settings import Settings
from service.steps.reconciler import reconcile
from service.steps.step_types import NewMeasurement, NewStep, StepResult
from tests.search.model.folders import write_model
from tests.service.helpers import (
    claimed,
    create_device,
    create_job,
    finish,
    let_leases_run_out,
    steps_of,
)
from tests.service.measuring import SHAPE, measuring_spec
from tests.service.serving import listening

REQUEST: dict[str, Any] = {"shape": SHAPE.to_dict(), "workload": {"seq_len": 8}}


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """Over a real connection."""
    with listening(settings) as (url, key), Client(url, key) as client:
        yield client


def silence(database: Database, since_s: float = 3600.0) -> None:
    """No agent was heard for this long."""
    with database.write() as session:
        session.execute(update(Device).values(last_seen_at=time.time() - since_s))


def wait_for_agent(database: Database, agent_timeout_s: float | None) -> str:
    """An onboarding whose first measurements are asked for; its id."""
    job_id = create_job(database, kind="onboarding")
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(kind=jobs.ONBOARDING))
        device = session.query(Device).one()
        spec = OnboardingSpec(**REQUEST, device=device.id).model_dump(mode="json")
        session.execute(update(Job).where(Job.id == job_id).values(spec=spec))
    new = NewMeasurement(
        device_id=device.id,
        spec=measuring_spec().to_dict(),
        then=NewStep(kind="onboarding"),
        agent_timeout_s=agent_timeout_s,
    )
    finish(database, claimed(database, job_id), StepResult(next=new))
    return job_id


def test_an_onboarding_is_a_job_of_its_own_kind(client: Client, database: Database) -> None:
    onboarding = client.onboard("this-cpu", {**REQUEST, "seed": 3})
    assert onboarding.state == JobState.QUEUED
    assert onboarding.device_id == client.device("this-cpu").id
    spec = OnboardingSpec.model_validate(onboarding.spec)
    assert spec.space.precision == ["fp32", "int8"]
    assert (spec.seed, spec.max_measurements, spec.workload.provider) == (3, 50, "cpu")
    (step,) = steps_of(database, onboarding.id)
    assert (step.kind, step.state, step.input) == ("onboarding", "ready", {})
    assert client.jobs() == []
    with pytest.raises(NotFound):
        client.job(onboarding.id)
    assert [o.id for o in client.onboardings().items] == [onboarding.id]
    assert [o.id for o in client.onboardings("this-cpu").items] == [onboarding.id]
    assert client.onboarding_events_page(onboarding.id).items[0].data == {"state": "queued"}


def test_onboardings_are_listed_page_by_page(client: Client, database: Database) -> None:
    ids = [client.onboard("this-cpu", REQUEST).id for _ in range(3)]
    create_job(database)
    first = client.onboardings("this-cpu", limit=2)
    assert [o.id for o in first.items] == ids[:0:-1]
    last = client.onboardings("this-cpu", limit=2, cursor=first.next_cursor)
    assert ([o.id for o in last.items], last.next_cursor) == (ids[:1], None)
    with pytest.raises(Rejected, match="cursor: is not one that this server gave"):
        client.onboardings(cursor="x")


def test_a_search_job_is_no_onboarding(client: Client, database: Database) -> None:
    job_id = create_job(database)
    for call in (client.onboarding, client.cancel_onboarding, client.onboarding_events_page):
        with pytest.raises(NotFound, match="there is no onboarding"):
            call(job_id)
    assert client.onboardings().items == []


def test_an_onboarding_is_cancelled(client: Client) -> None:
    onboarding = client.onboard("this-cpu", REQUEST)
    for _ in range(2):
        assert client.cancel_onboarding(onboarding.id).state == JobState.CANCELLED
    assert client.onboarding(onboarding.id).state == JobState.CANCELLED


def test_an_uploaded_model_gives_the_shape(client: Client, tmp_path: Path) -> None:
    upload = client.upload_folder(write_model(tmp_path / "model"))
    request = {"model": {"upload": upload.id}, "workload": {"seq_len": 16}}
    assert client.onboard("this-cpu", request).spec["model"] == {"upload": upload.id}
    with pytest.raises(Rejected, match=r"workload.seq_len: must be at most \d+"):
        client.onboard("this-cpu", {**request, "workload": {"seq_len": 4096}})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"shape": None}, "shape"),
        ({"model": {"upload": "up_x"}}, "shape"),
        ({"shape": None, "model": {"upload": "up_x"}}, "model.upload"),
        ({"shape": {**SHAPE.to_dict(), "num_heads": 0}}, "shape.num_heads"),
        ({"workload": {"seq_len": 17}}, "workload.seq_len"),
        ({"workload": {"seq_len": 8, "provider": "cuda"}}, "workload.provider"),
        ({"space": {"precision": ["fp16"]}}, "space.precision"),
        ({"space": {"ffn_dim": [16, 64]}}, "space.ffn_dim"),
        ({"tolerance": 0.001}, "tolerance"),
        ({"max_measurements": 9}, "max_measurements"),
        ({"max_minutes": 0.1}, "max_minutes"),
        ({"budgets_ms": [0]}, "budgets_ms[0]"),
        ({"mode": "quick"}, "mode"),
        ({"agent_timeout_s": -1}, "agent_timeout_s"),
    ],
)
def test_what_cannot_be_learnt_is_refused_by_its_field(
    client: Client, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        client.onboard("this-cpu", {**REQUEST, **change})
    assert refused.value.problem.errors[0].field.startswith(field)
    assert client.onboardings().items == []


def test_what_the_device_lacks_is_refused_with_its_reason(
    client: Client, database: Database
) -> None:
    asked = {**REQUEST, "workload": {"seq_len": 8, "runtime": "openvino"}}
    with pytest.raises(Rejected, match=r"workload.runtime.*openvino is not installed here"):
        client.onboard("this-cpu", asked)
    with database.write() as session:
        device = session.query(Device).one()
        runtimes = {"openvino": {"version": "2026.4", "precisions": ["fp32"]}}
        device.identity = {**device.identity, "runtimes": runtimes}
    assert client.onboard("this-cpu", asked).spec["space"]["precision"] == ["fp32"]
    with pytest.raises(Rejected, match=r"space.precision: openvino .* does not do int8"):
        client.onboard("this-cpu", {**asked, "space": {"precision": ["fp32", "int8"]}})


# --- nobody there ------------------------------------------------------------------------------


def test_without_an_agent_it_says_so_at_once_and_fails_in_the_end(
    client: Client, database: Database
) -> None:
    silence(database)
    job_id = wait_for_agent(database, agent_timeout_s=0.5)
    told = [e for e in client.onboarding_stream(job_id) if e.kind == "waiting"]
    assert [(e.level, e.message) for e in told] == [
        (
            "warning",
            "no agent of 'this-cpu' is connected; start `snugnet agent --name this-cpu` there; "
            "waiting for 0.5 s at most",
        )
    ]
    ended = client.onboarding(job_id)
    assert ended.state == JobState.FAILED
    assert ended.status_reason is not None
    assert ended.status_reason.code == "no_agent"
    assert ended.status_reason.message == "no agent of the device came within 0.5 s"


def test_an_agent_that_comes_in_time_gets_the_work(client: Client, database: Database) -> None:
    silence(database)
    job_id = wait_for_agent(database, agent_timeout_s=3600.0)
    device = client.register_device("this-cpu", client.device("this-cpu").identity)
    assert client.claim_measurement_job(device.id, wait_s=0) is not None
    reconcile(database, 5.0)
    assert client.onboarding(job_id).state == JobState.RUNNING


def waiting_events(database: Database, job_id: str) -> int:
    with database.read() as session:
        return sum(event.kind == "waiting" for event in list_events(session, job_id))


def test_an_agent_that_leaves_is_missed_once_each_time(database: Database) -> None:
    device = create_device(database)
    job_id = wait_for_agent(database, agent_timeout_s=None)
    assert waiting_events(database, job_id) == 0
    for expected in (1, 2):
        silence(database)
        for _ in range(2):
            reconcile(database, 5.0)
        assert waiting_events(database, job_id) == expected
        create_device(database)
        with database.write() as session:
            assert measurement_jobs.claim(session, device.id, "agent", 60.0) is not None
        let_leases_run_out(database)
    silence(database, 30 * 86_400.0)
    reconcile(database, 5.0)  # it waits for ever
    with database.read() as session:
        assert session.query(MeasurementJob).one().state == "running"
