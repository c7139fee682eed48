"""What travels over HTTP about webhooks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from service.schemas import Answer, Name, Strict

WEBHOOK_KINDS = (
    "job.queued",
    "job.running",
    "job.paused",
    "job.cancelled",
    "job.failed",
    "job.succeeded",
)
WebhookKind = Literal[
    "job.queued", "job.running", "job.paused", "job.cancelled", "job.failed", "job.succeeded"
]
WebhookKinds = Annotated[list[WebhookKind], Field(min_length=1, max_length=len(WEBHOOK_KINDS))]


class NewWebhook(Strict):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    """Where messages are POSTed to, by https; its host must have public addresses alone."""

    kinds: WebhookKinds | None = None
    """What it is told; everything where nothing is named."""

    job_id: Name | None = None
    """Of this job alone."""


class WebhookChange(Strict):
    """None leaves it as it is."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    kinds: WebhookKinds | None = None
    is_active: bool | None = None


class Webhook(Answer):
    id: str
    url: str
    kinds: list[str]
    job_id: str | None
    is_active: bool
    created_at: float


class WebhookWithSecret(Webhook):
    secret: str
    """`whsec_...`, shown this once; messages are signed with it as Standard Webhooks says."""


class WebhookPage(Answer):
    items: list[Webhook]


class Delivery(Answer):
    """A message; its id is the `webhook-id` of every attempt."""

    id: str
    kind: str
    payload: dict[str, Any]
    state: str
    """pending, delivered, failed."""

    num_attempts: int
    next_attempt_at: float
    status: int | None
    """Of the last answer."""

    error: str | None
    created_at: float
    finished_at: float | None


class DeliveryPage(Answer):
    items: list[Delivery]
    next_cursor: str | None = None
