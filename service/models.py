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
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

from service.db import epoch_now
from service.ids import new_id

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
    }


def _id_column(prefix: str) -> Mapped[str]:
    return mapped_column(primary_key=True, default=lambda: new_id(prefix))


def _created_at() -> Mapped[float]:
    return mapped_column(default=epoch_now())


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = _id_column("key")
    name: Mapped[str]
    key_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = _created_at()
    last_used_at: Mapped[float | None]


class Upload(Base):
    """`kind`: model, dataset. `state`: open, ready."""

    __tablename__ = "uploads"

    id: Mapped[str] = _id_column("up")
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default="open")
    summary: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = _created_at()


class UploadFile(Base):
    __tablename__ = "upload_files"

    upload_id: Mapped[str] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]


class Device(Base):
    __tablename__ = "devices"

    id: Mapped[str] = _id_column("dev")
    name: Mapped[str] = mapped_column(unique=True)
    identity: Mapped[dict[str, Any]]
    fingerprint: Mapped[str]
    last_seen_at: Mapped[float] = _created_at()


class Job(Base):
    """`state`: queued, running, cancelling, cancelled, failed, succeeded; the last three stick."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "state"))

    id: Mapped[str] = _id_column("job")
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="queued")
    stage: Mapped[str | None]
    progress_done: Mapped[float | None]
    progress_total: Mapped[float | None]
    progress_unit: Mapped[str | None]
    reason_code: Mapped[str | None]
    reason_message: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    result: Mapped[dict[str, Any] | None]
    last_event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[float] = _created_at()
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class Step(Base):
    """`state`: ready, running, done, failed, cancelled. `token` rises with every claim: a write
    that names an old one is refused."""

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
    __tablename__ = "predictors"
    __table_args__ = (Index(None, "device_id", "workload_key"),)

    id: Mapped[str] = _id_column("pred")
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    workload: Mapped[dict[str, Any]]
    workload_key: Mapped[str]
    payload: Mapped[dict[str, Any]]
    fit_report: Mapped[dict[str, Any]]
    created_at: Mapped[float] = _created_at()


class MeasurementJob(Base):
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
    created_at: Mapped[float] = _created_at()
    finished_at: Mapped[float | None]


class ArtifactRow(Base):
    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "target_index", "name"),)

    id: Mapped[str] = _id_column("art")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    target_index: Mapped[int | None]
    name: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created_at: Mapped[float] = _created_at()
