"""The tables. Times are UTC epoch seconds by the database's clock; ids are prefixed text."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

from service.database.db import epoch_now
from service.database.ids import new_id
from service.tenants.tenancy import TenantOwned

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        float: Double(),
        dict[str, Any]: JSON(none_as_null=True),
        dict[str, str]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


def _id_column(prefix: str) -> Mapped[str]:
    return mapped_column(primary_key=True, default=lambda: new_id(prefix))


def _created_at() -> Mapped[float]:
    return mapped_column(default=epoch_now())


class Tenant(Base):
    """Who shares the service without seeing the others. A limit of None is none."""

    __tablename__ = "tenants"

    id: Mapped[str] = _id_column("ten")
    name: Mapped[str] = mapped_column(unique=True)
    max_running_jobs: Mapped[int | None]
    max_queued_jobs: Mapped[int | None]
    max_evaluations: Mapped[int | None]  # of one job
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[float] = _created_at()


class ApiKey(TenantOwned, Base):
    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "tenant_id"),)

    id: Mapped[str] = _id_column("key")
    name: Mapped[str]
    key_sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str] | None]  # None is every scope
    created_at: Mapped[float] = _created_at()
    last_used_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class Upload(TenantOwned, Base):
    """`kind`: model, teacher, dataset, unlabelled. `state`: open, fetching, checking, ready,
    failed. Who fetches or checks it holds a lease, as of a step; `error` says why it failed."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "tenant_id"), Index(None, "state"))

    id: Mapped[str] = _id_column("up")
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default="open")
    summary: Mapped[dict[str, Any] | None]
    hub: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    owner: Mapped[str | None]
    token: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_until: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[float] = _created_at()


class UploadFile(Base):
    __tablename__ = "upload_files"
    __table_args__ = (Index(None, "sha256"),)

    upload_id: Mapped[str] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    received: Mapped[bool] = mapped_column(default=False, server_default=false())


class UploadChunk(Base):
    """A part of a file that has arrived; once the file is put together, its rows go."""

    __tablename__ = "upload_chunks"
    __table_args__ = (Index(None, "sha256"),)

    upload_id: Mapped[str] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[bool] = mapped_column(default=False, server_default=false())


class Device(TenantOwned, Base):
    """`agent_id` is the installation that speaks for it; a retired device is measured no more."""

    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[str] = _id_column("dev")
    name: Mapped[str]
    identity: Mapped[dict[str, Any]]
    fingerprint: Mapped[str]
    agent_id: Mapped[str | None]
    last_seen_at: Mapped[float] = _created_at()
    retired_at: Mapped[float | None]


class Job(TenantOwned, Base):
    """`state`: queued, running, pausing, paused, cancelling, cancelled, failed, succeeded; the
    last three stick. `kind`: search, or onboarding. `version` rises with every change."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "tenant_id", "kind", "created_at", "id"),
        Index(None, "state"),
    )

    id: Mapped[str] = _id_column("job")
    kind: Mapped[str] = mapped_column(default="search", server_default="search")
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(default=0)
    labels: Mapped[dict[str, str]] = mapped_column(default=dict, server_default="{}")
    traceparent: Mapped[str | None]  # of the request that made it (W3C Trace Context)
    state: Mapped[str] = mapped_column(default="queued")
    stage: Mapped[str | None]
    progress_done: Mapped[float | None]
    progress_total: Mapped[float | None]
    progress_unit: Mapped[str | None]
    reason_code: Mapped[str | None]
    reason_message: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]
    last_event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[float] = _created_at()
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    swept_at: Mapped[float | None]  # when retention took its checkpoints


class Step(Base):
    """`state`: waiting, ready, running, done, failed, cancelled. `token` rises with every claim: a
    write that names an old one is refused.

    A waiting step becomes ready once the `waits_for` parts that join it are done; each part names
    it in `joins_id`.
    """

    __tablename__ = "steps"
    __table_args__ = (Index(None, "job_id"), Index(None, "state"))

    id: Mapped[str] = _id_column("step")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    input: Mapped[dict[str, Any]]
    output: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(default="ready")
    attempts: Mapped[int] = mapped_column(default=0)
    token: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    published_at: Mapped[float | None]
    num_published: Mapped[int] = mapped_column(default=0)
    joins_id: Mapped[str | None]
    waits_for: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = _created_at()
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class OutboxRow(Base):
    """A wake-up that is to be sent: written with its step, sent after the commit."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "sent_at"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    step_id: Mapped[str] = mapped_column(ForeignKey("steps.id", ondelete="CASCADE"))
    created_at: Mapped[float] = _created_at()
    sent_at: Mapped[float | None]


class Event(Base):
    """What happened to a job; `seq` counts from 1 without gaps, in the order of the commits."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[float] = _created_at()
    kind: Mapped[str]
    level: Mapped[str] = mapped_column(default="info")
    message: Mapped[str]
    data: Mapped[dict[str, Any]]


class EvaluationRow(Base):
    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("job_id", "source", "generation", "index_in_generation"),
        Index(None, "job_id", "fingerprint", "fidelity"),
    )

    id: Mapped[str] = _id_column("eval")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    source: Mapped[str]
    generation: Mapped[int]
    index_in_generation: Mapped[int]
    genotype: Mapped[dict[str, Any] | None]
    fingerprint: Mapped[str]
    fidelity: Mapped[str]
    subnet: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    state: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = _created_at()


class PredictorRow(Base):
    """A fitted predictor; `version` counts those of one device, key and shape from 1."""

    __tablename__ = "predictors"
    __table_args__ = (UniqueConstraint("device_id", "predictor_key", "shape_key", "version"),)

    id: Mapped[str] = _id_column("pred")
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    device_fingerprint: Mapped[str]
    predictor_key: Mapped[str]
    shape_key: Mapped[str]
    precision: Mapped[str]
    phase: Mapped[str]
    version: Mapped[int]
    payload: Mapped[dict[str, Any]]
    fit_report: Mapped[dict[str, Any]]
    created_at: Mapped[float] = _created_at()


class MeasurementJob(TenantOwned, Base):
    """Work for a measuring agent. `state`: ready, running, done, failed, cancelled. When it is
    done, the step `then_kind` of its job becomes ready."""

    __tablename__ = "measurement_jobs"
    __table_args__ = (Index(None, "device_id", "state"), Index(None, "job_id"))

    id: Mapped[str] = _id_column("mj")
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="ready")
    token: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    then_kind: Mapped[str | None]
    then_input: Mapped[dict[str, Any] | None]
    purposes: Mapped[dict[str, Any] | None]  # of its networks, by key
    agent_timeout_s: Mapped[float | None]  # None waits for an agent for ever
    waiting_noted_at: Mapped[float | None]
    created_at: Mapped[float] = _created_at()
    finished_at: Mapped[float | None]


class MeasuringSession(Base):
    """One run of a measuring job, with its anchors; never changed, never deleted."""

    __tablename__ = "measuring_sessions"
    __table_args__ = (Index(None, "device_id", "created_at", "id"),)

    id: Mapped[str] = _id_column("ms")
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    device_fingerprint: Mapped[str]
    measurement_job_id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str | None]
    workload: Mapped[dict[str, Any]]
    runtime_version: Mapped[str]
    shape: Mapped[dict[str, Any]]
    shape_key: Mapped[str]
    environment: Mapped[dict[str, Any]]
    peaks: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]]
    anchors: Mapped[list[Any]]
    is_noisy: Mapped[bool]
    created_at: Mapped[float] = _created_at()


class MeasurementRow(Base):
    """One measured network with its raw samples; never changed, never deleted. `purpose`:
    onboarding, holdout, finish, recipe, check, user."""

    __tablename__ = "measurements"
    __table_args__ = (
        Index(None, "device_id", "created_at", "id"),
        Index(None, "predictor_key", "shape_key"),
    )

    id: Mapped[str] = _id_column("m")
    session_id: Mapped[str] = mapped_column(ForeignKey("measuring_sessions.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    predictor_key: Mapped[str]
    shape_key: Mapped[str]
    purpose: Mapped[str]
    network_key: Mapped[str]
    runtime: Mapped[str]
    precision: Mapped[str]
    threads: Mapped[int]
    batch_size: Mapped[int]
    seq_len: Mapped[int]
    subnet: Mapped[dict[str, Any] | None]
    subnet_fingerprint: Mapped[str | None]
    blob: Mapped[str | None]
    median_ms: Mapped[float]
    p95_ms: Mapped[float]
    is_noisy: Mapped[bool]
    samples: Mapped[dict[str, Any]]
    created_at: Mapped[float] = _created_at()


class ArtifactRow(TenantOwned, Base):
    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("job_id", "target_index", "name"),
        Index(None, "tenant_id"),
        Index(None, "sha256"),
    )

    id: Mapped[str] = _id_column("art")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    target_index: Mapped[int | None]
    name: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created_at: Mapped[float] = _created_at()


class IdempotencyKey(TenantOwned, Base):
    """A request that may be sent again: what it was, and, once it took effect, its answer.

    `token` and `lease_until` tell who is at it meanwhile.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "key"), Index(None, "created_at"))

    key: Mapped[str]
    request_sha256: Mapped[str]
    token: Mapped[str]
    lease_until: Mapped[float]
    status: Mapped[int | None]
    body: Mapped[str | None]
    created_at: Mapped[float] = _created_at()


class AuditRow(TenantOwned, Base):
    """Who changed what, written with the change; the database refuses to change or delete it."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "tenant_id", "id"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float] = _created_at()
    key_id: Mapped[str | None]
    action: Mapped[str]  # method and route
    target: Mapped[str]  # path
    request_id: Mapped[str]
    client: Mapped[str]  # address


class Webhook(TenantOwned, Base):
    """Where news of jobs are sent: of those kinds, of one job or of all.

    `old_secret` signs too until `old_secret_until`.
    """

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "tenant_id"),)

    id: Mapped[str] = _id_column("wh")
    url: Mapped[str]
    kinds: Mapped[list[str]]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[float | None]
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[float] = _created_at()


class WebhookDelivery(TenantOwned, Base):
    """One message. `state`: pending, delivered, failed; its id is the same at every attempt."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "created_at", "id"),
        Index(None, "state", "next_attempt_at"),
    )

    id: Mapped[str] = _id_column("msg")
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="pending")
    num_attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[float] = mapped_column(default=epoch_now())
    status: Mapped[int | None]  # of the last answer
    error: Mapped[str | None]  # of the last attempt
    created_at: Mapped[float] = _created_at()
    finished_at: Mapped[float | None]


class BlobRow(Base):
    """A file in the store, or one that is about to be. Whoever gives it a name or deletes it locks
    its row first (`blobs.take`). It is no tenant's own: several may have the same bytes."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)  # None until it has arrived
    chunks: Mapped[list[str] | None]  # SHA-256 of each 8 MiB
    created_at: Mapped[float] = _created_at()


class BlobReference(Base):
    """A job needs a blob, be it for its next step only."""

    __tablename__ = "blob_references"
    __table_args__ = (Index(None, "sha256"),)

    job_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), primary_key=True)


class SigningKeyRow(Base):
    """The public half of a key that signs manifests, or did."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str]
    created_at: Mapped[float] = _created_at()


class WebSession(TenantOwned, Base):
    """Somebody who is signed in to the dashboard by an API key, for as long as the key is good.
    Whoever holds the token is; only its SHA-256 is stored."""

    __tablename__ = "web_sessions"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[str] = _id_column("ws")
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    token_sha256: Mapped[str] = mapped_column(unique=True)
    csrf_token: Mapped[str]
    created_at: Mapped[float] = _created_at()
    expires_at: Mapped[float]
    last_used_at: Mapped[float] = _created_at()
