"""News of jobs reach who asked for them, signed, and again until they are taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.database.db import Database, epoch_now
from service.database.models import Webhook, WebhookDelivery
from service.jobs import lifecycle
from service.settings import Settings
from service.steps.step_types import StepResult
from service.webhooks.webhook_sender import DELAYS_SECONDS, MAX_ATTEMPTS, WebhookSender
from tests.service.helpers import claimed, create_job, finish
from tests.service.receiving import Message, Receiver, receiving
from tests.service.serving import application, close, new_key, serving, signed_in

HERE = ("127.0.0.1",)


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    allowing = settings.model_copy(update={"webhook_private_hosts": HERE})
    with application(allowing) as app:
        yield signed_in(app, new_key(settings))
        close(app)


@pytest.fixture
def sender(database: Database) -> WebhookSender:
    return WebhookSender(database, HERE)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def hook(http: TestClient, receiver: Receiver, **options: Any) -> dict[str, Any]:
    answer = http.post("/v1/webhooks", json={"url": receiver.url, **options})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def kinds(receiver: Receiver) -> list[str]:
    return [json.loads(message.body)["type"] for message in receiver.messages]


def is_signed(message: Message, secret: str) -> bool:
    """As a receiver checks it."""
    headers = message.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + message.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in headers["webhook-signature"].split(" ")


def let_time_pass(database: Database) -> None:
    with database.write() as session:
        session.execute(update(WebhookDelivery).values(next_attempt_at=epoch_now()))


def delivery(database: Database) -> WebhookDelivery:
    with database.read() as session:
        return session.scalars(select(WebhookDelivery)).one()


def test_each_state_of_a_job_is_told(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    hook(http, receiver)
    job_id = create_job(database, labels={"team": "nlp"})
    finish(database, claimed(database, job_id), StepResult(result={}))
    sender.run_once()
    assert kinds(receiver) == ["job.queued", "job.running", "job.succeeded"]
    last = json.loads(receiver.messages[-1].body)
    assert last["data"] == {
        "job_id": job_id,
        "name": "job",
        "labels": {"team": "nlp"},
        "state": "succeeded",
    }
    sender.run_once()
    assert len(receiver.messages) == 3


def test_only_what_was_asked_for_is_told(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    wanted_id = create_job(database)
    hook(http, receiver, job_id=wanted_id, kinds=["job.cancelled"])
    for job_id in (create_job(database), wanted_id):
        with database.write() as session:
            lifecycle.request_cancel(session, job_id)
    sender.run_once()
    assert kinds(receiver) == ["job.cancelled"]
    assert json.loads(receiver.messages[0].body)["data"]["job_id"] == wanted_id


def test_what_was_rolled_back_is_not_told(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    hook(http, receiver)
    job_id = create_job(database)
    sender.run_once()
    with database.write() as session:
        lifecycle.request_cancel(session, job_id)
        session.rollback()
    sender.run_once()
    assert kinds(receiver) == ["job.queued"]


def test_messages_are_signed_by_the_new_secret_and_for_a_day_by_the_old(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    made = hook(http, receiver)
    rotated = http.post(f"/v1/webhooks/{made['id']}:rotate-secret").json()
    assert rotated["secret"] != made["secret"]
    assert "secret" not in http.get(f"/v1/webhooks/{made['id']}").json()
    create_job(database)
    sender.run_once()
    assert is_signed(receiver.messages[0], made["secret"])
    assert is_signed(receiver.messages[0], rotated["secret"])
    with database.write() as session:
        session.execute(update(Webhook).values(old_secret_until=epoch_now() - 1))
    create_job(database)
    sender.run_once()
    assert not is_signed(receiver.messages[1], made["secret"])
    assert is_signed(receiver.messages[1], rotated["secret"])


def test_a_message_that_was_not_taken_comes_again_under_its_id(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302]
    hook(http, receiver)
    create_job(database)
    for status in (500, 302):  # redirects are not followed
        sender.run_once()
        waiting = delivery(database)
        assert (waiting.state, waiting.status) == ("pending", status)
        sender.run_once()  # it is not due yet
        assert waiting.num_attempts == len(receiver.messages)
        let_time_pass(database)
    sender.run_once()
    done = delivery(database)
    assert (done.state, done.status, done.error, done.num_attempts) == ("delivered", 204, None, 3)
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 1
    assert len({message.body for message in receiver.messages}) == 1


def test_after_the_last_attempt_it_has_failed_until_it_is_sent_again(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    receiver.statuses = [503] * MAX_ATTEMPTS
    made = hook(http, receiver)
    create_job(database)
    for _ in range(MAX_ATTEMPTS):
        let_time_pass(database)
        sender.run_once()
    failed = delivery(database)
    assert (failed.state, failed.num_attempts) == ("failed", len(DELAYS_SECONDS) + 1)
    path = f"/v1/webhooks/{made['id']}/deliveries"
    (logged,) = http.get(path).json()["items"]
    assert (logged["state"], logged["error"]) == ("failed", "answered 503")
    assert http.post(f"{path}/{failed.id}:redeliver").status_code == 202
    sender.run_once()
    assert delivery(database).state == "delivered"
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 1


def test_who_is_gone_is_told_nothing_more(
    http: TestClient, database: Database, sender: WebhookSender, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    made = hook(http, receiver)
    for _ in range(2):
        create_job(database)
        sender.run_once()
    assert len(receiver.messages) == 1
    assert http.get(f"/v1/webhooks/{made['id']}").json()["is_active"] is False


def test_an_address_that_became_private_is_not_called(
    http: TestClient, database: Database, receiver: Receiver
) -> None:
    url = "https://hooks.example/x"
    hook(http, receiver, url=url)
    create_job(database)
    WebhookSender(database, (), look_up=lambda *_: ["10.0.0.1"]).run_once()
    assert "private address 10.0.0.1" in (delivery(database).error or "")


def test_two_senders_send_a_message_once(
    http: TestClient, database: Database, receiver: Receiver
) -> None:
    hook(http, receiver)
    create_job(database)
    first, second = (WebhookSender(database, HERE) for _ in range(2))
    (due,) = first._due()
    claimed_by = [sender._claim(due) is not None for sender in (first, second)]
    assert claimed_by == [True, False]


def test_a_test_message_is_sent_at_once(settings: Settings, receiver: Receiver) -> None:
    allowing = settings.model_copy(update={"webhook_private_hosts": HERE})
    with serving(allowing) as http:
        made = hook(http, receiver)
        assert http.post(f"/v1/webhooks/{made['id']}:test").json()["kind"] == "webhook.test"
        path = f"/v1/webhooks/{made['id']}/deliveries"
        while http.get(path).json()["items"][0]["state"] == "pending":
            pass
    assert kinds(receiver) == ["webhook.test"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://example.org"}, "url"),
        ({"url": "https://example.org", "kinds": []}, "kinds"),
        ({"url": "https://example.org", "kinds": ["job.exploded"]}, "kinds[0]"),
        ({"url": "https://example.org", "job_id": "job_0"}, "job_id"),
    ],
)
def test_what_is_wrong_is_named(http: TestClient, body: dict[str, Any], field: str) -> None:
    answer = http.post("/v1/webhooks", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_webhook_is_changed_listed_and_deleted(
    http: TestClient, database: Database, receiver: Receiver
) -> None:
    made = hook(http, receiver)
    path = f"/v1/webhooks/{made['id']}"
    changed = http.patch(path, json={"is_active": False, "kinds": ["job.failed"]}).json()
    assert (changed["is_active"], changed["kinds"]) == (False, ["job.failed"])
    create_job(database)
    assert http.get(f"{path}/deliveries").json()["items"] == []
    assert [webhook["id"] for webhook in http.get("/v1/webhooks").json()["items"]] == [made["id"]]
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404
