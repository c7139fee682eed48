"""Fitted predictors, by device, key and shape: a later job on the same device need not measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, tuple_
from sqlalchemy.orm import Session, aliased

from predictors.key import PredictorKey
from search.errors import InvalidInput
from service.database.models import Device, PredictorRow

MAX_SOURCES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPredictor:
    id: str
    device_id: str
    job_id: str | None
    predictor_key: str
    shape_key: str
    version: int
    payload: dict[str, Any]
    fit_report: dict[str, Any]
    created_at: float

    @classmethod
    def of(cls, row: PredictorRow) -> StoredPredictor:
        return cls(**{name: getattr(row, name) for name in cls.__slots__})


def save_predictor(
    session: Session,
    device_id: str,
    *,
    key: PredictorKey,
    shape_key: str,
    payload: dict[str, Any],
    fit_report: dict[str, Any],
    job_id: str | None = None,
) -> str:
    """As the newest version of its key and shape on the device; its id."""
    newest = session.execute(
        select(func.max(PredictorRow.version)).where(
            PredictorRow.device_id == device_id,
            PredictorRow.predictor_key == key.text,
            PredictorRow.shape_key == shape_key,
        )
    ).scalar_one()
    row = PredictorRow(
        device_id=device_id,
        job_id=job_id,
        device_fingerprint=key.device_fingerprint,
        predictor_key=key.text,
        shape_key=shape_key,
        precision=key.precision,
        phase=key.phase,
        version=(newest or 0) + 1,
        payload=payload,
        fit_report=fit_report,
    )
    session.add(row)
    session.flush()
    return row.id


def find_predictor(
    session: Session, device_id: str, key_text: str, shape_key: str
) -> StoredPredictor | None:
    """The newest version."""
    query = (
        select(PredictorRow)
        .where(
            PredictorRow.device_id == device_id,
            PredictorRow.predictor_key == key_text,
            PredictorRow.shape_key == shape_key,
        )
        .order_by(PredictorRow.version.desc())
        .limit(1)
    )
    row = session.scalars(query).one_or_none()
    return None if row is None else StoredPredictor.of(row)


def get_predictor(session: Session, device_id: str, predictor_id: str) -> StoredPredictor | None:
    row = session.get(PredictorRow, predictor_id)
    return StoredPredictor.of(row) if row is not None and row.device_id == device_id else None


def list_predictors(
    session: Session,
    device_id: str,
    *,
    key_text: str | None = None,
    shape_key: str | None = None,
    precision: str | None = None,
    latest: bool = False,
    before_id: str | None = None,
    limit: int | None = None,
) -> list[StoredPredictor]:
    """The newest first.

    Args:
        latest: only the newest version of each key and shape.
        before_id: of the last one of the page before.

    Raises:
        InvalidInput: the device has no predictor `before_id`.
    """
    query = select(PredictorRow).where(PredictorRow.device_id == device_id)
    if key_text is not None:
        query = query.where(PredictorRow.predictor_key == key_text)
    if shape_key is not None:
        query = query.where(PredictorRow.shape_key == shape_key)
    if precision is not None:
        query = query.where(PredictorRow.precision == precision)
    if latest:
        query = query.where(~_has_newer_version())
    order = PredictorRow.created_at, PredictorRow.version, PredictorRow.id
    if before_id is not None:
        last = get_predictor(session, device_id, before_id)
        if last is None:
            raise InvalidInput("cursor", "is not one that this server gave")
        query = query.where(tuple_(*order) < (last.created_at, last.version, last.id))
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    return [StoredPredictor.of(row) for row in session.scalars(query)]


def _has_newer_version() -> ColumnElement[bool]:
    newer = aliased(PredictorRow)
    return exists().where(
        newer.device_id == PredictorRow.device_id,
        newer.predictor_key == PredictorRow.predictor_key,
        newer.shape_key == PredictorRow.shape_key,
        newer.version > PredictorRow.version,
    )


def source_payloads(session: Session, key: PredictorKey, shape_key: str) -> list[dict[str, Any]]:
    """The newest one of each other key with the same quantity, shape, precision and phase."""
    query = (
        select(PredictorRow)
        .join(Device, Device.id == PredictorRow.device_id)  # the session's tenant has them
        .where(
            PredictorRow.shape_key == shape_key,
            PredictorRow.precision == key.precision,
            PredictorRow.phase == key.phase,
            PredictorRow.predictor_key != key.text,
        )
        .order_by(PredictorRow.created_at.desc(), PredictorRow.version.desc())
    )
    newest: dict[str, dict[str, Any]] = {}
    for row in session.scalars(query):
        if len(newest) == MAX_SOURCES:
            break
        if row.payload.get("key", {}).get("quantity", "latency") != key.quantity:
            continue
        newest.setdefault(row.predictor_key, row.payload)
    return list(newest.values())
