"""Everything that was ever measured: append-only, raw samples included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from predictors.device import Device
from predictors.key import predictor_key, shape_key
from predictors.measurement import Measurement
from predictors.rows import LatencyRow
from predictors.spec import MeasuringResult, MeasuringSpec
from search.space import SubnetConfig
from service.database.models import MeasurementJob, MeasurementRow, MeasuringSession
from service.database.pages import newest_first

# Held-out networks judge one predictor; for the next one they are measurements like any other.
DEFAULT_PURPOSE = "onboarding"
FITTED_PURPOSES = ("onboarding", "holdout", "finish", "check", "user")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedResult:
    """An answer to what was asked, with all that is worked out of it before it is stored."""

    spec: MeasuringSpec
    result: MeasuringResult
    device: Device
    samples: tuple[dict[str, Any], ...]  # of each measured network, with intervals

    @classmethod
    def of(cls, spec: MeasuringSpec, data: object) -> Self:
        """Takes a second or two for hundreds of networks.

        Raises:
            InvalidInput: it is no answer to `spec`.
        """
        result = MeasuringResult.from_dict(data, spec)
        device = Device.from_dict(result.environment.get("device"), "environment.device")
        device.runtime(spec.workload.runtime)
        samples = tuple(_samples(measurement) for measurement in result.measurements)
        return cls(spec=spec, result=result, device=device, samples=samples)


def record_session(session: Session, job: MeasurementJob, checked: CheckedResult) -> str:
    """Store a finished measuring job's networks, in the transaction that finishes it."""
    spec, result, device = checked.spec, checked.result, checked.device
    row = MeasuringSession(
        device_id=job.device_id,
        device_fingerprint=device.fingerprint,
        measurement_job_id=job.id,
        job_id=job.job_id,
        workload=spec.workload.to_dict(),
        runtime_version=device.runtime_version(spec.workload.runtime),
        shape=spec.shape.to_dict(),
        shape_key=shape_key(spec.shape),
        environment=dict(result.environment),
        peaks=dict(result.peaks),
        summary=result.session.to_dict(),
        anchors=[_without_samples(anchor) for anchor in result.anchors],
        is_noisy=result.session.noisy,
    )
    session.add(row)
    session.flush()
    blobs = {network.key: network.blob for network in spec.networks}
    for measurement, samples in zip(result.measurements, checked.samples, strict=True):
        key = measurement.key
        purpose = (job.purposes or {}).get(key, DEFAULT_PURPOSE)
        session.add(_row(row, checked, measurement, samples, purpose, blobs[key]))
    session.flush()
    return row.id


def session_of(session: Session, measurement_job_id: str) -> str | None:
    """Id of the session that a measuring job became."""
    query = select(MeasuringSession.id).where(
        MeasuringSession.measurement_job_id == measurement_job_id
    )
    return session.scalars(query).one_or_none()


def list_sessions(
    session: Session, device_id: str, *, limit: int, before: tuple[float, str] | None = None
) -> list[MeasuringSession]:
    """Newest first; `before` is `(created_at, id)` of the last one of the page before."""
    query = select(MeasuringSession).where(MeasuringSession.device_id == device_id)
    return list(session.scalars(newest_first(query, MeasuringSession, limit=limit, before=before)))


def list_measurements(
    session: Session,
    device_id: str,
    *,
    limit: int,
    before: tuple[float, str] | None = None,
    filters: Mapping[str, str] | None = None,
    since: float | None = None,
) -> list[MeasurementRow]:
    """Newest first. `filters`: equal purpose, precision, runtime, session_id."""
    query = select(MeasurementRow).where(MeasurementRow.device_id == device_id)
    for column, value in (filters or {}).items():
        query = query.where(getattr(MeasurementRow, column) == value)
    if since is not None:
        query = query.where(MeasurementRow.created_at >= since)
    return list(session.scalars(newest_first(query, MeasurementRow, limit=limit, before=before)))


def latency_rows(
    session: Session,
    device_id: str,
    key_text: str,
    shape_key: str,
    *,
    not_of_job: str | None,
) -> list[LatencyRow]:
    """What quiet sessions measured of this key and shape, the oldest first; networks of mixed
    precision are left out, since no predictor is fitted to them.

    Args:
        not_of_job: a job that brings its own sessions itself.
    """
    query = (
        select(MeasurementRow, MeasuringSession)
        .join(MeasuringSession, MeasuringSession.id == MeasurementRow.session_id)
        .where(
            MeasurementRow.device_id == device_id,
            MeasurementRow.predictor_key == key_text,
            MeasurementRow.shape_key == shape_key,
            MeasurementRow.purpose.in_(FITTED_PURPOSES),
            MeasurementRow.subnet.is_not(None),
            MeasuringSession.is_noisy.is_(False),
        )
        .order_by(MeasuringSession.created_at, MeasurementRow.id)
    )
    if not_of_job is not None:
        other = MeasuringSession.job_id.is_distinct_from(not_of_job)
        query = query.where(other)
    return [
        LatencyRow(
            subnet=SubnetConfig.from_dict(row.subnet or {}),
            batch_size=row.batch_size,
            seq_len=row.seq_len,
            median_ms=row.median_ms,
            p95_ms=row.p95_ms,
            anchors_ms=tuple(anchor["median_ms"] for anchor in of.anchors),
        )
        for row, of in session.execute(query)
        if not (row.subnet or {}).get("float_layers")
    ]


def _row(
    of: MeasuringSession,
    checked: CheckedResult,
    measurement: Measurement,
    samples: dict[str, Any],
    purpose: str,
    blob: str | None,
) -> MeasurementRow:
    subnet, workload = measurement.subnet, checked.spec.workload
    precision = subnet.precision if subnet is not None else "fp32"
    return MeasurementRow(
        session_id=of.id,
        device_id=of.device_id,
        predictor_key=predictor_key(checked.device, workload, precision).text,
        shape_key=of.shape_key,
        purpose=purpose,
        network_key=measurement.key,
        runtime=workload.runtime,
        precision=precision,
        threads=workload.threads,
        batch_size=workload.batch_size,
        seq_len=workload.seq_len,
        subnet=subnet.renumbered().to_dict() if subnet is not None else None,
        subnet_fingerprint=subnet.renumbered().fingerprint if subnet is not None else None,
        blob=blob,
        median_ms=measurement.median_ms,
        p95_ms=measurement.p95_ms,
        is_noisy=measurement.is_noisy,
        samples=samples,
    )


def _samples(measurement: Measurement) -> dict[str, Any]:
    columns = ("key", "subnet", "median_ms", "p95_ms", "is_noisy")
    return {k: v for k, v in measurement.to_dict().items() if k not in columns}


def _without_samples(anchor: Measurement) -> dict[str, Any]:
    return {
        "key": anchor.key,
        "median_ms": anchor.median_ms,
        "energy_mj": anchor.energy_mj,
        "p95_ms": anchor.p95_ms,
        "raw_round_medians_ms": [float(ms) for ms in anchor.raw_round_medians_ms],
    }
