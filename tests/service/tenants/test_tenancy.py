"""A session for a tenant sees and writes what is the tenant's, whatever the statement."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError

from service.database.db import Database
from service.database.models import Job, Step
from service.jobs.jobs import create_job
from service.tenants.tenancy import DEFAULT_TENANT


@pytest.fixture
def everybody(database: Database) -> Iterator[Database]:
    """With a job of each of two tenants."""
    for tenant_id in (DEFAULT_TENANT, "ten_other"):
        with database.for_tenant(tenant_id).write() as session:
            create_job(session, {}, name=f"of {tenant_id}")
    everybody = Database(database.url)
    yield everybody
    everybody.dispose()


def ids(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Job.id).order_by(Job.tenant_id)))


def test_selects_joins_counts_and_gets_are_of_the_tenant(everybody: Database) -> None:
    mine_id, theirs_id = ids(everybody)
    mine = everybody.for_tenant(DEFAULT_TENANT)
    with mine.read() as session:
        assert session.get(Job, theirs_id) is None
        assert session.get(Job, mine_id) is not None
        assert session.execute(select(func.count(Job.id))).scalar_one() == 1
        joined = select(Step.job_id).join(Job, Job.id == Step.job_id)
        assert session.scalars(joined).all() == [mine_id]
        known = select(Step.job_id).where(exists().where(Job.id == Step.job_id))
        assert session.scalars(known).all() == [mine_id]


def test_updates_and_deletes_pass_others_by(everybody: Database) -> None:
    mine_id, theirs_id = ids(everybody)
    mine = everybody.for_tenant(DEFAULT_TENANT)
    with mine.write() as session:
        session.execute(update(Job).values(name="changed"))
    with everybody.read() as session:
        assert session.get_one(Job, mine_id).name == "changed"
        assert session.get_one(Job, theirs_id).name == "of ten_other"
    with mine.write() as session:
        session.execute(delete(Job))
    assert ids(everybody) == [theirs_id]


def test_each_session_keeps_its_own_tenant(everybody: Database) -> None:
    """The statement is compiled once for all of them."""
    for tenant_id in (DEFAULT_TENANT, "ten_other", DEFAULT_TENANT):
        with everybody.for_tenant(tenant_id).read() as session:
            assert [job.tenant_id for job in session.scalars(select(Job))] == [tenant_id]


def test_a_row_without_a_tenant_is_refused(everybody: Database) -> None:
    with pytest.raises(IntegrityError), everybody.write() as session:
        create_job(session, {}, name="whose?")
    assert len(ids(everybody)) == 2
