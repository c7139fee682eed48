"""Tenants with limits, labels of jobs, requests that may be sent again, an audit log, webhooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
DEFAULT = "ten_default"
OWNED = ("api_keys", "uploads", "devices", "jobs", "measurement_jobs", "artifacts")
INDEXED = {
    "api_keys": ["tenant_id"],
    "uploads": ["tenant_id"],
    "jobs": ["tenant_id", "kind", "created_at", "id"],
    "artifacts": ["tenant_id"],
    "audit_log": ["tenant_id", "id"],
    "webhooks": ["tenant_id"],
}

NEW_SCOPES = {"jobs": ("jobs:read", "jobs:write", "artifacts:read"), "devices": ("devices:write",)}
OLD_SCOPES = {"jobs:write": ("jobs",), "devices:write": ("devices",)}


def upgrade() -> None:
    _create_tables()
    _forbid_changes_of_audit_log()
    for table in OWNED:
        column = sa.Column("tenant_id", sa.Text(), nullable=False, server_default=DEFAULT)
        op.add_column(table, column)
    for table, columns in INDEXED.items():
        op.create_index(_index(table), table, columns)
    op.add_column("jobs", sa.Column("labels", JSON, nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))
    op.drop_column("jobs", "cancel_requested")
    op.drop_index("ix_jobs_created_at_id", table_name="jobs")
    with op.batch_alter_table("devices") as devices:
        devices.drop_constraint("uq_devices_name", type_="unique")
        devices.create_unique_constraint("uq_devices_tenant_id_name", ["tenant_id", "name"])
    _rewrite_scopes(_to_new)


def downgrade() -> None:
    _rewrite_scopes(_to_old)
    _name_devices_apart()
    with op.batch_alter_table("devices") as devices:
        devices.drop_constraint("uq_devices_tenant_id_name", type_="unique")
        devices.create_unique_constraint("uq_devices_name", ["name"])
    for table in INDEXED:
        op.drop_index(_index(table), table_name=table)
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    cancel = sa.Column("cancel_requested", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("jobs", cancel)
    op.execute(sa.text("UPDATE jobs SET cancel_requested = true WHERE state = 'cancelling'"))
    op.drop_column("jobs", "traceparent")
    op.drop_column("jobs", "labels")
    for table in reversed(OWNED):
        op.drop_column(table, "tenant_id")
    for table in ("webhook_deliveries", "webhooks", "audit_log", "idempotency_keys", "tenants"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(sa.text("DROP FUNCTION refuse_change()"))


def _create_tables() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("max_running_jobs", sa.Integer(), nullable=True),
        sa.Column("max_queued_jobs", sa.Integer(), nullable=True),
        sa.Column("max_evaluations", sa.Integer(), nullable=True),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
    )
    op.execute(
        sa.text(
            "INSERT INTO tenants (id, name, created_at) VALUES (:id, 'default', 0)"
        ).bindparams(id=DEFAULT)
    )
    _create_owned(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    _create_owned(
        "audit_log",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    _create_owned(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("kinds", JSON, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text(), nullable=True),
        sa.Column("old_secret_until", sa.Double(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], "fk_webhooks_job_id_jobs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    _create_owned(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            "fk_webhook_deliveries_webhook_id_webhooks",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    op.create_index(
        "ix_webhook_deliveries_webhook_id_created_at_id",
        "webhook_deliveries",
        ["webhook_id", "created_at", "id"],
    )
    op.create_index(
        "ix_webhook_deliveries_state_next_attempt_at",
        "webhook_deliveries",
        ["state", "next_attempt_at"],
    )


def _create_owned(table: str, *parts: Any) -> None:
    op.create_table(table, *parts, sa.Column("tenant_id", sa.Text(), nullable=False))


def _index(table: str) -> str:
    return f"ix_{table}_{'_'.join(INDEXED[table])}"


def _forbid_changes_of_audit_log() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            sa.text(
                "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
            )
        )
        op.execute(
            sa.text(
                "CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE ON audit_log "
                "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            sa.text(
                f"CREATE TRIGGER audit_log_refuses_{change.lower()} BEFORE {change} ON audit_log "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
        )


def _rewrite_scopes(convert: Callable[[list[str]], list[str]]) -> None:
    connection = op.get_bind()
    keys = sa.table("api_keys", sa.column("id", sa.Text()), sa.column("scopes", JSON))
    for key_id, scopes in connection.execute(sa.select(keys.c.id, keys.c.scopes)).all():
        if scopes is None:
            continue
        found = json.loads(scopes) if isinstance(scopes, str) else scopes
        connection.execute(
            sa.update(keys).where(keys.c.id == key_id).values(scopes=convert(found))
        )


def _to_new(scopes: list[str]) -> list[str]:
    return _converted(scopes, NEW_SCOPES)


def _to_old(scopes: list[str]) -> list[str]:
    return _converted([s for s in scopes if s not in ("jobs:read", "artifacts:read")], OLD_SCOPES)


def _converted(scopes: list[str], by: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [new for scope in scopes for new in by.get(scope, (scope,))]


def _name_devices_apart() -> None:
    """Two tenants may have called theirs the same."""
    op.execute(
        sa.text(
            "UPDATE devices SET name = name || ' (' || id || ')' WHERE EXISTS ("
            "SELECT 1 FROM devices AS other WHERE other.name = devices.name "
            "AND other.id < devices.id)"
        )
    )
