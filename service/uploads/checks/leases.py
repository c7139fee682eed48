"""Who fetches or checks an upload: the row's holder, as long as the row carries its token.

The same as for steps, on the upload's own row: a process that was killed is found out by its
lease, and what a late one writes is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.models import Upload
from service.steps.step_types import LeaseLost

MAX_ATTEMPTS = 4
FETCHING, CHECKING = "fetching", "checking"
UNSETTLED = (FETCHING, CHECKING)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLease:
    upload_id: str
    state: str
    token: int
    attempts: int


def begin(session: Session, upload: Upload, state: str) -> None:
    """Let whoever is free take it."""
    upload.state, upload.owner, upload.lease_until, upload.attempts = state, None, None, 0
    session.flush()


def claim(session: Session, state: str, owner: str, lease_seconds: float) -> UploadLease | None:
    """Take the oldest upload of this state that nobody holds. None: there is none."""
    oldest = select(Upload.id).where(_is_free(state)).order_by(Upload.created_at, Upload.id)
    upload_id = session.execute(oldest.limit(1)).scalar()
    if upload_id is None:
        return None
    row = session.execute(
        update(Upload)
        .where(Upload.id == upload_id, _is_free(state))
        .values(
            owner=owner,
            token=Upload.token + 1,
            attempts=Upload.attempts + 1,
            lease_until=until(lease_seconds),
        )
        .returning(Upload.token, Upload.attempts)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return UploadLease(upload_id=upload_id, state=state, token=row.token, attempts=row.attempts)


def is_any_free(session: Session, state: str) -> bool:
    return session.execute(select(Upload.id).where(_is_free(state)).limit(1)).first() is not None


def until(lease_seconds: float) -> ColumnElement[float]:
    """When a lease that is taken or renewed now runs out."""
    return epoch_now() + lease_seconds


def note(session: Session, lease: UploadLease, **values: Any) -> None:
    """Write something of the upload that its holder found out. Raises: LeaseLost."""
    _write(session, lease, owner=Upload.owner, **values)


def release(
    session: Session, lease: UploadLease, *, delay_seconds: float = 0.0, counts: bool = True
) -> None:
    """Give it back, for another try after a delay. Raises: LeaseLost."""
    attempts = Upload.attempts if counts else Upload.attempts - 1
    _write(
        session,
        lease,
        owner=None,
        lease_until=epoch_now() + delay_seconds if delay_seconds else None,
        attempts=attempts,
    )


def settle(session: Session, lease: UploadLease, state: str, **values: Any) -> None:
    """Move it on. Raises: LeaseLost."""
    _write(session, lease, state=state, owner=None, lease_until=None, attempts=0, **values)


def _is_free(state: str) -> ColumnElement[bool]:
    is_unheld = or_(Upload.lease_until.is_(None), Upload.lease_until <= epoch_now())
    return (Upload.state == state) & is_unheld


def _write(session: Session, lease: UploadLease, **values: Any) -> None:
    row = session.execute(
        update(Upload)
        .where(
            Upload.id == lease.upload_id,
            Upload.state == lease.state,
            Upload.token == lease.token,
        )
        .values(**values)
        .returning(Upload.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise LeaseLost(f"upload {lease.upload_id} is no longer held by token {lease.token}")
