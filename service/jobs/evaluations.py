"""Evaluated networks of a job: the search's memory, and what its front is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.models import EvaluationRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One network and what is known of it; unique by source, generation and index.

    `state` is what the sampler needs to be rebuilt; `fidelity` names how closely the quality was
    looked at, so that only like is compared with like.
    """

    source: str
    generation: int
    index_in_generation: int
    fingerprint: str
    fidelity: str
    subnet: dict[str, Any]
    metrics: dict[str, Any]
    genotype: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    created_at: float | None = None


def record_evaluation(session: Session, job_id: str, evaluation: Evaluation) -> bool:
    """Insert it, or return False when its place is taken (a repeated step).

    The caller holds the job's step (`steps.guard`), so nobody inserts in between.
    """
    place = (
        EvaluationRow.job_id == job_id,
        EvaluationRow.source == evaluation.source,
        EvaluationRow.generation == evaluation.generation,
        EvaluationRow.index_in_generation == evaluation.index_in_generation,
    )
    if session.execute(select(EvaluationRow.id).where(*place)).first():
        return False
    session.add(
        EvaluationRow(
            job_id=job_id,
            source=evaluation.source,
            generation=evaluation.generation,
            index_in_generation=evaluation.index_in_generation,
            genotype=evaluation.genotype,
            fingerprint=evaluation.fingerprint,
            fidelity=evaluation.fidelity,
            subnet=evaluation.subnet,
            metrics=evaluation.metrics,
            state=evaluation.state,
        )
    )
    session.flush()
    return True


def list_evaluations(session: Session, job_id: str, source: str | None = None) -> list[Evaluation]:
    """Ordered by source, generation and index."""
    query = select(EvaluationRow).where(EvaluationRow.job_id == job_id)
    if source is not None:
        query = query.where(EvaluationRow.source == source)
    order = (
        EvaluationRow.source,
        EvaluationRow.generation,
        EvaluationRow.index_in_generation,
    )
    return [_to_evaluation(row) for row in session.scalars(query.order_by(*order))]


def count_evaluations(session: Session, job_id: str, sources: Sequence[str]) -> int:
    query = select(func.count()).where(
        EvaluationRow.job_id == job_id, EvaluationRow.source.in_(sources)
    )
    return session.execute(query).scalar_one()


def cached_quality(
    session: Session, job_id: str, fingerprint: str, fidelity: str
) -> dict[str, Any] | None:
    """Metrics of the first evaluation of an equal network at the same fidelity."""
    query = (
        select(EvaluationRow.metrics)
        .where(
            EvaluationRow.job_id == job_id,
            EvaluationRow.fingerprint == fingerprint,
            EvaluationRow.fidelity == fidelity,
        )
        .order_by(EvaluationRow.created_at, EvaluationRow.id)
        .limit(1)
    )
    return session.scalars(query).one_or_none()


def _to_evaluation(row: EvaluationRow) -> Evaluation:
    return Evaluation(
        source=row.source,
        generation=row.generation,
        index_in_generation=row.index_in_generation,
        fingerprint=row.fingerprint,
        fidelity=row.fidelity,
        subnet=row.subnet,
        metrics=row.metrics,
        genotype=row.genotype,
        state=row.state,
        created_at=row.created_at,
    )
