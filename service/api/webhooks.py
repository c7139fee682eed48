"""Webhooks over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import JobsReader, JobsWriter, Service
from service.api.feeds import cursor_after, read_cursor
from service.database.models import Webhook as WebhookRow
from service.steps.outbox import nudge
from service.webhooks import webhooks
from service.webhooks.webhook_schemas import (
    Delivery,
    DeliveryPage,
    NewWebhook,
    Webhook,
    WebhookChange,
    WebhookPage,
    WebhookWithSecret,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post("", status_code=201)
def create(new: NewWebhook, parts: Service, caller: JobsWriter) -> WebhookWithSecret:
    """Be told of jobs; the secret that signs the messages is shown this once."""
    with caller.write() as session:
        row, secret = webhooks.create_webhook(session, new, parts.settings.webhook_private_hosts)
        return caller.answer(session, _with_secret(row, secret))


@router.get("")
def list_all(caller: JobsReader) -> WebhookPage:
    with caller.database.read() as session:
        return WebhookPage(items=[to_webhook(row) for row in webhooks.list_webhooks(session)])


@router.get("/{webhook_id}")
def get(webhook_id: str, caller: JobsReader) -> Webhook:
    with caller.database.read() as session:
        return to_webhook(webhooks.get_webhook(session, webhook_id))


@router.patch("/{webhook_id}")
def change(webhook_id: str, body: WebhookChange, parts: Service, caller: JobsWriter) -> Webhook:
    """Send it elsewhere, tell it other things, or nothing for a while."""
    with caller.write() as session:
        hosts = parts.settings.webhook_private_hosts
        return to_webhook(webhooks.change_webhook(session, webhook_id, body, hosts))


@router.delete("/{webhook_id}", status_code=204)
def delete(webhook_id: str, caller: JobsWriter) -> None:
    """With the log of its deliveries."""
    with caller.write() as session:
        session.delete(webhooks.get_webhook(session, webhook_id))


@router.post("/{webhook_id}:rotate-secret")
def rotate_secret(webhook_id: str, caller: JobsWriter) -> WebhookWithSecret:
    """A new secret; for a day the one before signs every message too."""
    with caller.write() as session:
        return caller.answer(session, _with_secret(*webhooks.rotate_secret(session, webhook_id)))


@router.post("/{webhook_id}:test", status_code=202)
def test(webhook_id: str, caller: JobsWriter) -> Delivery:
    """Send a message of the kind `webhook.test`."""
    with caller.write() as session:
        delivery = Delivery.model_validate(webhooks.send_test(session, webhook_id))
        caller.answer(session, delivery)
    nudge()
    return delivery


@router.get("/{webhook_id}/deliveries")
def deliveries(
    webhook_id: str,
    caller: JobsReader,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> DeliveryPage:
    """What was sent, newest first, and what became of it."""
    before = read_cursor(cursor)
    with caller.database.read() as session:
        webhooks.get_webhook(session, webhook_id)
        rows = webhooks.list_deliveries(session, webhook_id, limit=limit + 1, before=before)
    return DeliveryPage(
        items=[Delivery.model_validate(row) for row in rows[:limit]],
        next_cursor=cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


@router.post("/{webhook_id}/deliveries/{delivery_id}:redeliver", status_code=202)
def redeliver(webhook_id: str, delivery_id: str, caller: JobsWriter) -> Delivery:
    """Send a message once more, under its id."""
    with caller.write() as session:
        webhooks.get_webhook(session, webhook_id)
        row = webhooks.send_again(session, webhook_id, delivery_id)
        delivery = caller.answer(session, Delivery.model_validate(row))
    nudge()
    return delivery


def to_webhook(row: WebhookRow) -> Webhook:
    return Webhook.model_validate(row)


def _with_secret(row: WebhookRow, secret: str) -> WebhookWithSecret:
    return WebhookWithSecret(**to_webhook(row).model_dump(), secret=secret)
