"""Uploads in chunks, checked by whoever holds their lease, and fetched from a hub."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("hub", JSON, nullable=True),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("token", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
    ]


def upgrade() -> None:
    for column in _columns():
        op.add_column("uploads", column)
    op.create_index("ix_uploads_state", "uploads", ["state"])
    op.add_column(
        "upload_files",
        sa.Column("received", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    # Of an open one nobody remembers what has arrived; it is sent again.
    op.execute(
        "UPDATE upload_files SET received = true "
        "WHERE upload_id IN (SELECT id FROM uploads WHERE state = 'ready')"
    )
    op.create_table(
        "upload_chunks",
        sa.Column(
            "upload_id",
            sa.Text(),
            sa.ForeignKey(
                "uploads.id", name="fk_upload_chunks_upload_id_uploads", ondelete="CASCADE"
            ),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("upload_id", "name", "index", name="pk_upload_chunks"),
    )
    op.create_index("ix_upload_chunks_sha256", "upload_chunks", ["sha256"])


def downgrade() -> None:
    """Uploads that the older version would not know go."""
    op.drop_table("upload_chunks")
    op.execute("DELETE FROM upload_files WHERE upload_id IN (SELECT id FROM uploads "
               "WHERE state NOT IN ('open', 'ready'))")  # fmt: skip
    op.execute("DELETE FROM uploads WHERE state NOT IN ('open', 'ready')")
    op.drop_column("upload_files", "received")
    op.drop_index("ix_uploads_state", "uploads")
    for column in reversed(_columns()):
        op.drop_column("uploads", column.name)
