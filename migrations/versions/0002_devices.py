"""Measurements kept for good, predictors by key, scopes of keys, devices that can retire."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)


def _columns() -> list[tuple[str, sa.Column[Any]]]:
    # Added and dropped in place: a copy of a table, as SQLite needs for other changes, would take
    # the rows that refer to it away with the original.
    return [
        ("api_keys", sa.Column("scopes", JSON, nullable=True)),
        ("api_keys", sa.Column("expires_at", sa.Double(), nullable=True)),
        ("api_keys", sa.Column("revoked_at", sa.Double(), nullable=True)),
        ("devices", sa.Column("agent_id", sa.Text(), nullable=True)),
        ("devices", sa.Column("retired_at", sa.Double(), nullable=True)),
        ("jobs", sa.Column("kind", sa.Text(), nullable=False, server_default="search")),
        ("measurement_jobs", sa.Column("purposes", JSON, nullable=True)),
        ("measurement_jobs", sa.Column("agent_timeout_s", sa.Double(), nullable=True)),
        ("measurement_jobs", sa.Column("waiting_noted_at", sa.Double(), nullable=True)),
    ]


def upgrade() -> None:
    for table, column in _columns():
        op.add_column(table, column)
    # A predictor can be fitted again from measurements; those of the first schema hold terms that
    # are no longer read.
    op.drop_table("predictors")
    _create_predictors()
    _create_measuring_sessions()
    _create_measurements()


def downgrade() -> None:
    op.drop_table("measurements")
    op.drop_table("measuring_sessions")
    op.drop_table("predictors")
    op.create_table(
        "predictors",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("workload", JSON, nullable=False),
        sa.Column("workload_key", sa.Text(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("fit_report", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], "fk_predictors_device_id_devices"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], "fk_predictors_job_id_jobs", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_predictors"),
    )
    op.create_index(
        "ix_predictors_device_id_workload_key", "predictors", ["device_id", "workload_key"]
    )
    for table, column in reversed(_columns()):
        op.drop_column(table, column.name)


def _create_predictors() -> None:
    op.create_table(
        "predictors",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("device_fingerprint", sa.Text(), nullable=False),
        sa.Column("predictor_key", sa.Text(), nullable=False),
        sa.Column("shape_key", sa.Text(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("fit_report", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], "fk_predictors_device_id_devices"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], "fk_predictors_job_id_jobs", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_predictors"),
        sa.UniqueConstraint(
            "device_id",
            "predictor_key",
            "shape_key",
            "version",
            name="uq_predictors_device_id_predictor_key_shape_key_version",
        ),
    )


def _create_measuring_sessions() -> None:
    op.create_table(
        "measuring_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device_fingerprint", sa.Text(), nullable=False),
        sa.Column("measurement_job_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("workload", JSON, nullable=False),
        sa.Column("runtime_version", sa.Text(), nullable=False),
        sa.Column("shape", JSON, nullable=False),
        sa.Column("shape_key", sa.Text(), nullable=False),
        sa.Column("environment", JSON, nullable=False),
        sa.Column("peaks", JSON, nullable=False),
        sa.Column("summary", JSON, nullable=False),
        sa.Column("anchors", JSON, nullable=False),
        sa.Column("is_noisy", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], "fk_measuring_sessions_device_id_devices"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_measuring_sessions"),
        sa.UniqueConstraint("measurement_job_id", name="uq_measuring_sessions_measurement_job_id"),
    )
    op.create_index(
        "ix_measuring_sessions_device_id_created_at_id",
        "measuring_sessions",
        ["device_id", "created_at", "id"],
    )


def _create_measurements() -> None:
    op.create_table(
        "measurements",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("predictor_key", sa.Text(), nullable=False),
        sa.Column("shape_key", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("network_key", sa.Text(), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("seq_len", sa.Integer(), nullable=False),
        sa.Column("subnet", JSON, nullable=True),
        sa.Column("subnet_fingerprint", sa.Text(), nullable=True),
        sa.Column("blob", sa.Text(), nullable=True),
        sa.Column("median_ms", sa.Double(), nullable=False),
        sa.Column("p95_ms", sa.Double(), nullable=False),
        sa.Column("is_noisy", sa.Boolean(), nullable=False),
        sa.Column("samples", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["measuring_sessions.id"],
            "fk_measurements_session_id_measuring_sessions",
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], "fk_measurements_device_id_devices"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_measurements"),
    )
    for columns in (["device_id", "created_at", "id"], ["predictor_key", "shape_key"]):
        op.create_index(f"ix_measurements_{'_'.join(columns)}", "measurements", columns)
