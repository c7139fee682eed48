"""A real tiny job, run once, and a service on what it left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from service.reports.building import build_report
from service.reports.record import JobRecord
from service.reports.schema import JobReport
from service.tenants.auth import create_key
from service.tenants.tenancy import DEFAULT_TENANT
from tests.service.helpers import job_of
from tests.service.serving import application, close, signed_in
from tests.workers.steps.conftest import WholeJob, _one_thread, files, open_workshop, whole_job
from tests.workers.steps.in_process import Workshop

__all__ = ["_one_thread", "files", "open_workshop", "whole_job"]

ReportOf = Callable[[str], JobReport]


def report_of(workshop: Workshop, job_id: str) -> JobReport:
    job = job_of(workshop.database, job_id)
    with workshop.database.read() as session:
        return build_report(JobRecord.read(session, job, job.created_at + 3600))


@contextmanager
def served(workshop: Workshop, tenant_id: str = DEFAULT_TENANT) -> Iterator[TestClient]:
    """A client of the tenant's, signed in to an application on the workshop's folder."""
    with workshop.database.for_tenant(tenant_id).write() as session:
        key = create_key(session, "reader")
    with application(workshop.settings) as app:
        yield signed_in(app, key)
        close(app)


@pytest.fixture(scope="session")
def report(whole_job: WholeJob) -> JobReport:
    return report_of(whole_job.workshop, whole_job.job.id)


@pytest.fixture
def http(whole_job: WholeJob) -> Iterator[TestClient]:
    with served(whole_job.workshop) as http:
        yield http
