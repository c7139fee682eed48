"""What Prometheus reads: the names, the numbers behind them, and who may."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from service.database.db import Database, epoch_now
from service.database.models import (
    BlobRow,
    Device,
    OutboxRow,
    Step,
    Tenant,
    Webhook,
    WebhookDelivery,
)
from service.jobs import lifecycle
from service.settings import Settings
from service.steps import outbox
from service.steps.queue import InMemoryQueue
from service.steps.reconciler import reconcile
from service.steps.step_types import MAX_ATTEMPTS, NewStep, StepResult
from service.telemetry import metrics
from service.telemetry.metrics_access import is_allowed
from service.telemetry.metrics_database import DatabaseMetrics
from service.tenants.tenancy import DEFAULT_TENANT
from tests.service.helpers import (
    claim,
    claimed,
    create_device,
    create_job,
    finish,
    let_leases_run_out,
    open_step,
)
from tests.service.serving import serving

LOCAL = "127.0.0.1"


def parsed(text: str) -> dict[str, float]:
    """Each sample by its name and labels, as they are written."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def gauges(database: Database) -> dict[str, float]:
    return parsed(DatabaseMetrics(database).exposition().decode())


def test_an_empty_database_has_every_gauge_at_zero(database: Database) -> None:
    found = gauges(database)
    assert found.pop("snugnet_scrape_ok") == 1
    assert found.pop("snugnet_scrape_seconds") > 0
    assert set(found.values()) == {0.0}
    for name in (
        "snugnet_jobs kind=search state=paused",
        "snugnet_queue_oldest_seconds queue=train",
        "snugnet_steps queue=light state=ready",
        "snugnet_outbox_lag_seconds",
        "snugnet_devices connected=no",
        "snugnet_blob_bytes",
    ):
        assert name in found


def test_a_step_that_waits_shows_in_its_queue_with_its_age(database: Database) -> None:
    create_job(database, kind="supernet")
    later = create_job(database, kind="evaluate")
    with database.write() as session:
        session.execute(
            update(Step).values(created_at=Step.created_at - 100, not_before=epoch_now() - 90)
        )
        session.execute(
            update(Step).where(Step.job_id == later).values(not_before=epoch_now() + 60)
        )
    found = gauges(database)
    assert found["snugnet_jobs kind=search state=queued"] == 2
    assert found["snugnet_steps queue=train state=ready"] == 1
    assert found["snugnet_steps queue=search state=ready"] == 1
    assert 90 <= found["snugnet_queue_oldest_seconds queue=train"] < 100
    assert found["snugnet_queue_oldest_seconds queue=search"] == 0  # it is not due yet


def test_a_step_of_a_paused_job_waits_for_nobody(database: Database) -> None:
    job_id = create_job(database)
    with database.write() as session:
        lifecycle.request_pause(session, job_id)
    found = gauges(database)
    assert found["snugnet_jobs kind=search state=paused"] == 1
    assert found["snugnet_steps queue=light state=ready"] == 0


def test_a_step_of_a_job_that_its_tenant_holds_back_waits_for_no_worker(
    database: Database,
) -> None:
    first, second = create_job(database), create_job(database)
    with database.write() as session:
        session.execute(update(Tenant).values(max_running_jobs=1))
        due_since = epoch_now() - 50
        session.execute(update(Step).values(not_before=due_since, created_at=due_since))
    assert gauges(database)["snugnet_queue_oldest_seconds queue=light"] >= 50
    claimed(database, first)
    assert gauges(database)["snugnet_queue_oldest_seconds queue=light"] == 0
    with database.write() as session:
        session.execute(update(Tenant).values(max_running_jobs=2))
    assert gauges(database)["snugnet_queue_oldest_seconds queue=light"] >= 50
    claimed(database, second)
    assert gauges(database)["snugnet_queue_oldest_seconds queue=light"] == 0


def test_a_step_that_waited_for_its_parts_is_as_old_as_their_end(database: Database) -> None:
    job_id = create_job(database)
    parts = [NewStep(kind="evaluate")]
    finish(
        database, claimed(database, job_id), StepResult(next=NewStep(kind="search"), parts=parts)
    )
    with database.write() as session:
        session.execute(update(Step).values(created_at=Step.created_at - 100, not_before=0.0))
    assert gauges(database)["snugnet_steps queue=search state=waiting"] == 1
    finish(database, claimed(database, job_id), StepResult())
    found = gauges(database)
    assert found["snugnet_steps queue=search state=ready"] == 1
    assert found["snugnet_queue_oldest_seconds queue=search"] < 100


def test_wake_ups_that_the_broker_does_not_take_lag_behind(database: Database) -> None:
    create_job(database)
    with database.write() as session:
        session.execute(update(OutboxRow).values(created_at=epoch_now() - 50))
        session.execute(update(Step).values(not_before=epoch_now() - 50))
    found = gauges(database)
    assert found["snugnet_outbox_unsent"] == 1
    assert 50 <= found["snugnet_outbox_lag_seconds"] < 100
    outbox.publish(database, InMemoryQueue())
    assert gauges(database)["snugnet_outbox_unsent"] == 0


def test_a_silent_holder_is_counted_once_by_the_reconciler(database: Database) -> None:
    def expiries() -> float:
        name = "snugnet_lease_expiries_total noticed_by=reconciler"
        return parsed(metrics.exposition().decode()).get(name, 0.0)

    job_id = create_job(database)
    outbox.publish(database, InMemoryQueue())
    before = expiries()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with database.read() as session:
            step_id = open_step(database, job_id).id
            assert session.get_one(Step, step_id).attempts == attempt - 1
        assert claim(database, job_id) is not None
        let_leases_run_out(database)
        assert gauges(database)["snugnet_expired_leases"] == 1
        for _ in range(3):  # however many rounds it takes until somebody comes
            reconcile(database, 0.0)
            outbox.publish(database, InMemoryQueue())
        assert expiries() - before == attempt
    assert gauges(database)["snugnet_jobs kind=search state=failed"] == 1


def test_files_count_once_they_have_arrived(database: Database) -> None:
    with database.write() as session:
        session.add(BlobRow(sha256="0" * 64, size_bytes=10**10))
        session.add(BlobRow(sha256="1" * 64, size_bytes=None))
    found = gauges(database)
    assert (found["snugnet_blobs"], found["snugnet_blob_bytes"]) == (1, 1e10)


def test_devices_are_counted_by_whether_their_agent_is_there(database: Database) -> None:
    create_device(database, "here")
    away = create_device(database, "away").id
    with database.write() as session:
        session.execute(
            update(Device).where(Device.id == away).values(last_seen_at=epoch_now() - 3600)
        )
    found = gauges(database)
    assert found["snugnet_devices connected=yes"] == 1
    assert found["snugnet_devices connected=no"] == 1
    assert not [name for name in found if "here" in name or "away" in name]


def test_messages_that_nobody_takes_are_counted_and_lag(database: Database) -> None:
    with database.write() as session:
        webhook = Webhook(
            tenant_id=DEFAULT_TENANT, url="https://example.org", kinds=["job"], secret="s"
        )
        session.add(webhook)
        session.flush()
        for state, due in (("pending", -60.0), ("pending", 60.0), ("failed", -600.0)):
            session.add(
                WebhookDelivery(
                    tenant_id=DEFAULT_TENANT,
                    webhook_id=webhook.id,
                    kind="job",
                    payload={},
                    state=state,
                    next_attempt_at=epoch_now() + due,
                )
            )
    found = gauges(database)
    assert (found["snugnet_webhook_pending"], found["snugnet_webhook_failed"]) == (2, 1)
    assert 60 <= found["snugnet_webhook_lag_seconds"] < 120


def test_what_grows_is_read_twice_a_minute_at_most(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def count(_session: object) -> list[object]:
        reads.append("x")
        return []

    monkeypatch.setattr("service.telemetry.metrics_database.HISTORY", (count,))
    watched = DatabaseMetrics(database)
    for _ in range(3):
        watched.exposition()
    assert len(reads) == 1


def test_a_database_that_is_away_is_said_so() -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:9/none")
    assert gauges(database)["snugnet_scrape_ok"] == 0
    database.dispose()


def test_requests_are_counted_by_route_and_status_and_never_by_id(settings: Settings) -> None:
    def count(*parts: str) -> float:
        text = metrics.exposition().decode()
        return parsed(text).get(" ".join(("snugnet_http_requests_total", *parts)), 0.0)

    missed = ("method=GET", "route=/v1/search-jobs/{job_id}", "status=404")
    unknown = ("method=other", "route=unmatched", "status=404")
    large = ("method=POST", "route=unmatched", "status=413")
    with serving(settings) as http:
        before = [count(*parts) for parts in (missed, unknown, large)]
        for name in ("job_a", "job_b"):
            http.get(f"/v1/search-jobs/{name}")
        http.request("BREW", "/coffee")
        http.post("/v1/search-jobs", content=b" " * (1024**2 + 1))
        after = [count(*parts) for parts in (missed, unknown, large)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]
    assert "job_a" not in metrics.exposition().decode()


def test_the_metrics_are_for_whoever_has_their_key(settings: Settings) -> None:
    locked = settings.model_copy(update={"metrics_key": Settings(metrics_key="k3y").metrics_key})
    with serving(locked) as http:
        refused = http.get("/metrics")
        allowed = http.get("/metrics", headers={"Authorization": "Bearer k3y"})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert allowed.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert re.search(r"^snugnet_jobs\{", allowed.text, re.M)
    assert re.search(r"^snugnet_http_requests_total\{", allowed.text, re.M)


@pytest.mark.parametrize(
    ("key", "host", "headers", "expected"),
    [
        (None, LOCAL, {}, True),
        (None, "::1", {}, True),
        (None, "10.0.0.7", {}, False),
        (None, None, {}, False),
        (None, "testclient", {}, False),
        (None, LOCAL, {"x-forwarded-for": "10.0.0.7"}, False),
        ("k3y", LOCAL, {}, False),
        ("k3y", "10.0.0.7", {"authorization": "Bearer k3y"}, True),
        ("k3y", "10.0.0.7", {"authorization": "Bearer k3"}, False),
        ("k3y", "10.0.0.7", {"authorization": "Basic k3y"}, False),
    ],
)
def test_without_a_key_only_this_machine_may_read(
    key: str | None, host: str | None, headers: Mapping[str, str], expected: bool
) -> None:
    settings = Settings.model_validate({"metrics_key": key})
    assert is_allowed(settings, host, headers) is expected
