"""Webhooks: who wants news of jobs, and messages to them (https://www.standardwebhooks.com).

A message is written in the transaction of what it tells of, and sent after it; its id is the same
at every attempt, so that a receiver can tell a repeated one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.database.db import epoch_now
from service.database.ids import new_id
from service.database.models import Job, Webhook, WebhookDelivery
from service.database.pages import newest_first
from service.problems import NotFound
from service.webhooks.public_address import check_url
from service.webhooks.webhook_schemas import WEBHOOK_KINDS, NewWebhook, WebhookChange

TEST_KIND = "webhook.test"
SECRET_PREFIX = "whsec_"
OVERLAP_SECONDS = 24 * 3600.0
"""How long the secret before the last one signs too."""
MAX_WEBHOOKS = 50  # of a tenant


def create_webhook(
    session: Session, new: NewWebhook, private_hosts: Collection[str]
) -> tuple[Webhook, str]:
    """The webhook, and its secret, which is shown this once.

    Raises: InvalidInput.
    """
    check_url(new.url, private_hosts)
    if new.job_id is not None and session.get(Job, new.job_id) is None:
        raise InvalidInput("job_id", f"there is no job {new.job_id!r}")
    if len(list_webhooks(session)) >= MAX_WEBHOOKS:
        raise InvalidInput("url", f"there are {MAX_WEBHOOKS} webhooks already: delete one first")
    secret = _new_secret()
    webhook = Webhook(
        url=new.url, kinds=list(new.kinds or WEBHOOK_KINDS), job_id=new.job_id, secret=secret
    )
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return webhook, secret


def get_webhook(session: Session, webhook_id: str) -> Webhook:
    """Raises: NotFound."""
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise NotFound("webhook", webhook_id)
    return webhook


def list_webhooks(session: Session) -> list[Webhook]:
    """Oldest first: a tenant has few."""
    return list(session.scalars(select(Webhook).order_by(Webhook.created_at, Webhook.id)))


def change_webhook(
    session: Session, webhook_id: str, change: WebhookChange, private_hosts: Collection[str]
) -> Webhook:
    """Raises: NotFound, InvalidInput."""
    webhook = get_webhook(session, webhook_id)
    if change.url is not None:
        check_url(change.url, private_hosts)
        webhook.url = change.url
    if change.kinds is not None:
        webhook.kinds = list(change.kinds)
    if change.is_active is not None:
        webhook.is_active = change.is_active
    session.flush()
    return webhook


def rotate_secret(session: Session, webhook_id: str) -> tuple[Webhook, str]:
    """A new secret; the one before signs beside it for a day. Raises: NotFound."""
    webhook = get_webhook(session, webhook_id)
    now = session.execute(select(epoch_now())).scalar_one()
    webhook.old_secret, webhook.old_secret_until = webhook.secret, now + OVERLAP_SECONDS
    webhook.secret = _new_secret()
    session.flush()
    return webhook, webhook.secret


# --- messages -----------------------------------------------------------------------------------


def announce_state(session: Session, job_id: str, state: str) -> None:
    """Tell those who want to know that a search job came into this state."""
    kind = f"job.{state}"
    job = session.get(Job, job_id, populate_existing=True)
    if job is None or job.kind != "search" or kind not in WEBHOOK_KINDS:
        return
    wanted = select(Webhook).where(
        Webhook.tenant_id == job.tenant_id,
        Webhook.is_active,
        or_(Webhook.job_id.is_(None), Webhook.job_id == job_id),
    )
    data = {"job_id": job.id, "name": job.name, "labels": job.labels, "state": state}
    for webhook in session.scalars(wanted).all():
        if kind in webhook.kinds:
            _write(session, webhook, kind, data)


def send_test(session: Session, webhook_id: str) -> WebhookDelivery:
    """Raises: NotFound."""
    webhook = get_webhook(session, webhook_id)
    return _write(session, webhook, TEST_KIND, {"webhook_id": webhook.id})


def send_again(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """The same message under the same id, with all its attempts before it. Raises: NotFound."""
    delivery = session.get(WebhookDelivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFound("delivery", delivery_id)
    delivery.state, delivery.num_attempts, delivery.finished_at = "pending", 0, None
    delivery.next_attempt_at = epoch_now()
    session.flush()
    session.refresh(delivery)
    return delivery


def list_deliveries(
    session: Session, webhook_id: str, *, limit: int, before: tuple[float, str] | None = None
) -> list[WebhookDelivery]:
    """Newest first; `before` is `(created_at, id)` of the last one of the page before."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    return list(session.scalars(newest_first(query, WebhookDelivery, limit=limit, before=before)))


def _write(session: Session, webhook: Webhook, kind: str, data: dict[str, Any]) -> WebhookDelivery:
    now = session.execute(select(epoch_now())).scalar_one()
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    delivery = WebhookDelivery(
        id=new_id("msg"),
        tenant_id=webhook.tenant_id,
        webhook_id=webhook.id,
        kind=kind,
        payload={"type": kind, "timestamp": at, "data": data},
    )
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


# --- signatures ---------------------------------------------------------------------------------


def body_of(delivery: WebhookDelivery) -> bytes:
    """Equal at every attempt."""
    return json.dumps(delivery.payload, sort_keys=True, separators=(",", ":")).encode()


def signature(secrets_: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> str:
    """`webhook-signature`: of each secret one, `v1,<base64 of HMAC-SHA-256>`."""
    signed = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    return " ".join(f"v1,{_sign(secret, signed)}" for secret in secrets_)


def _sign(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
