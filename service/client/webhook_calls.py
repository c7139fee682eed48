"""Calls about webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.client.calls import Call, delete, get, patch, path_of, post, reads
from service.webhooks.webhook_schemas import (
    Delivery,
    DeliveryPage,
    Webhook,
    WebhookPage,
    WebhookWithSecret,
)


def create_webhook(
    url: str, *, kinds: Sequence[str] | None = None, job_id: str | None = None
) -> Call[WebhookWithSecret]:
    """Be told of jobs; the secret that signs the messages is in the answer, and nowhere else.

    Args:
        kinds: such as `job.succeeded`; everything without any.
        job_id: of this job alone.
    """
    body = {"url": url, "kinds": None if kinds is None else list(kinds), "job_id": job_id}
    return post(reads(WebhookWithSecret), path_of("webhooks"), body)


def webhooks() -> Call[list[Webhook]]:
    return get(WebhookPage, path_of("webhooks")).then(lambda page: page.items)


def webhook(webhook_id: str) -> Call[Webhook]:
    return get(Webhook, path_of("webhooks", webhook_id))


def change_webhook(
    webhook_id: str,
    *,
    url: str | None = None,
    kinds: Sequence[str] | None = None,
    is_active: bool | None = None,
) -> Call[Webhook]:
    """What is None stays as it is."""
    body = {"url": url, "kinds": None if kinds is None else list(kinds), "is_active": is_active}
    return patch(Webhook, path_of("webhooks", webhook_id), body)


def delete_webhook(webhook_id: str) -> Call[None]:
    return delete(path_of("webhooks", webhook_id))


def rotate_webhook_secret(webhook_id: str) -> Call[WebhookWithSecret]:
    """A new secret; for a day the one before signs every message too."""
    return post(reads(WebhookWithSecret), f"{path_of('webhooks', webhook_id)}:rotate-secret")


def send_test_webhook(webhook_id: str) -> Call[Delivery]:
    """A message of the kind `webhook.test`."""
    return post(reads(Delivery), f"{path_of('webhooks', webhook_id)}:test")


def webhook_deliveries(webhook_id: str, **paging: Any) -> Call[DeliveryPage]:
    """One page, newest first; `cursor` of the page before; `limit`."""
    return get(DeliveryPage, path_of("webhooks", webhook_id, "deliveries"), paging)


def redeliver(webhook_id: str, delivery_id: str) -> Call[Delivery]:
    """Send a message once more, under its id."""
    path = path_of("webhooks", webhook_id, "deliveries", delivery_id)
    return post(reads(Delivery), f"{path}:redeliver")
