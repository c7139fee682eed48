"""Fitted predictors, by device and workload: a later job on the same device need not measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.models import PredictorRow


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPredictor:
    id: str
    payload: dict[str, Any]
    fit_report: dict[str, Any]
    created_at: float


def save_predictor(
    session: Session,
    device_id: str,
    workload: dict[str, Any],
    payload: dict[str, Any],
    fit_report: dict[str, Any],
    *,
    workload_key: str,
    job_id: str | None = None,
) -> str:
    row = PredictorRow(
        device_id=device_id,
        job_id=job_id,
        workload=workload,
        workload_key=workload_key,
        payload=payload,
        fit_report=fit_report,
    )
    session.add(row)
    session.flush()
    return row.id


def find_predictor(session: Session, device_id: str, workload_key: str) -> StoredPredictor | None:
    """The newest one."""
    query = (
        select(PredictorRow)
        .where(PredictorRow.device_id == device_id, PredictorRow.workload_key == workload_key)
        .order_by(PredictorRow.created_at.desc(), PredictorRow.id.desc())
        .limit(1)
    )
    row = session.scalars(query).one_or_none()
    if row is None:
        return None
    return StoredPredictor(
        id=row.id, payload=row.payload, fit_report=row.fit_report, created_at=row.created_at
    )
