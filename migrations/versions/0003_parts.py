"""Steps that run side by side, and the one that waits for them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("joins_id", sa.Text(), nullable=True),
        sa.Column("waits_for", sa.Integer(), nullable=False, server_default="0"),
    ]


def upgrade() -> None:
    for column in _columns():
        op.add_column("steps", column)


def downgrade() -> None:
    for column in reversed(_columns()):
        op.drop_column("steps", column.name)
