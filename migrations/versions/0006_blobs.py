"""Blobs with the digests of their chunks, which job needs which, and who signs manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
SHA256 = re.compile(r'"([0-9a-f]{64})"')
BATCH_ROWS = 500


def upgrade() -> None:
    blobs = op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("chunks", JSON, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blobs"),
    )
    references = op.create_table(
        "blob_references",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], "fk_blob_references_job_id_jobs", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], "fk_blob_references_sha256_blobs"),
        sa.PrimaryKeyConstraint("job_id", "sha256", name="pk_blob_references"),
    )
    op.create_index("ix_blob_references_sha256", "blob_references", ["sha256"])
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])
    op.create_index("ix_upload_files_sha256", "upload_files", ["sha256"])
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signing_keys"),
    )
    op.add_column("jobs", sa.Column("swept_at", sa.Double(), nullable=True))
    _describe_what_is_there(blobs, references)


def downgrade() -> None:
    op.drop_column("jobs", "swept_at")
    op.drop_table("signing_keys")
    op.drop_index("ix_upload_files_sha256", "upload_files")
    op.drop_index("ix_artifacts_sha256", "artifacts")
    op.drop_table("blob_references")
    op.drop_table("blobs")


def _describe_what_is_there(blobs: sa.Table, references: sa.Table) -> None:
    """Files that were stored before anybody counted: those with a name have a size, those that
    steps hand on are found in their inputs. What is named there and is no file does no harm."""
    connection = op.get_bind()
    known: dict[str, dict[str, Any]] = {}
    for table in ("artifacts", "upload_files", "upload_chunks"):
        rows = connection.execute(sa.text(f"SELECT sha256, size_bytes FROM {table}"))
        for sha256, size_bytes in rows:
            known[sha256] = {"sha256": sha256, "size_bytes": size_bytes, "created_at": 0.0}
    named = sorted(set(_named_by_steps(connection)))
    for _, sha256 in named:
        known.setdefault(sha256, {"sha256": sha256, "size_bytes": None, "created_at": 0.0})
    _insert(connection, blobs, list(known.values()))
    _insert(connection, references, [{"job_id": j, "sha256": sha256} for j, sha256 in named])


def _named_by_steps(connection: sa.Connection) -> Iterator[tuple[str, str]]:
    for column in ("input", "output"):
        rows = connection.execute(
            sa.text(f"SELECT job_id, {column} FROM steps WHERE {column} IS NOT NULL")
        )
        for job_id, data in rows:
            text = data if isinstance(data, str) else json.dumps(data)
            yield from ((job_id, sha256) for sha256 in SHA256.findall(text))


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), BATCH_ROWS):
        connection.execute(table.insert(), rows[start : start + BATCH_ROWS])
