"""The files that a job hands out: rows that give names to blobs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.database.models import ArtifactRow, Job
from service.steps.step_types import NewArtifact


def record_artifacts(
    session: Session, job_id: str, new: Sequence[NewArtifact]
) -> list[ArtifactRow]:
    """Name blobs as artifacts of a job; a repeated or repaired one replaces its row."""
    if not new:
        return []
    tenant_id = session.execute(select(Job.tenant_id).where(Job.id == job_id)).scalar_one()
    rows = []
    for artifact in new:
        session.execute(
            delete(ArtifactRow).where(
                ArtifactRow.job_id == job_id,
                ArtifactRow.target_index.is_not_distinct_from(artifact.target_index),
                ArtifactRow.name == artifact.name,
            )
        )
        row = ArtifactRow(
            tenant_id=tenant_id,
            job_id=job_id,
            target_index=artifact.target_index,
            name=artifact.name,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
            media_type=artifact.media_type,
        )
        session.add(row)
        session.flush()
        rows.append(row)
    return rows


def list_artifacts(session: Session, job_id: str) -> list[ArtifactRow]:
    query = select(ArtifactRow).where(ArtifactRow.job_id == job_id)
    return list(
        session.scalars(query.order_by(ArtifactRow.target_index.nulls_first(), ArtifactRow.name))
    )


def get_artifact(session: Session, artifact_id: str) -> ArtifactRow | None:
    return session.get(ArtifactRow, artifact_id)
