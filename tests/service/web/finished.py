"""Fixtures for pages about jobs: a real tiny one, run once, and a browser signed in to its
service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from service.database.models import Tenant
from service.tenants.tenancy import DEFAULT_TENANT
from tests.service.reports.conftest import report, served
from tests.service.reports.pages import Page
from tests.service.web.browsing import signed_in
from tests.workers.steps.conftest import WholeJob, _one_thread, files, open_workshop, whole_job
from tests.workers.steps.in_process import Workshop

__all__ = ["_one_thread", "browser", "files", "open_workshop", "report", "stranger", "whole_job"]


@contextmanager
def browsing(workshop: Workshop, tenant_id: str = DEFAULT_TENANT) -> Iterator[TestClient]:
    with served(workshop, tenant_id) as http:
        yield signed_in(http)


@pytest.fixture
def browser(whole_job: WholeJob) -> Iterator[TestClient]:
    with browsing(whole_job.workshop) as browser:
        yield browser


@pytest.fixture
def stranger(whole_job: WholeJob) -> Iterator[TestClient]:
    """Of another tenant."""
    with whole_job.workshop.database.write() as session:
        session.merge(Tenant(id="ten_stranger", name="stranger"))
    with browsing(whole_job.workshop, "ten_stranger") as browser:
        yield browser


def page_of(browser: TestClient, path: str) -> Page:
    """A page that is there, and is as the policy of all pages wants it."""
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    page = Page(answer.text)
    assert [script for script in page.scripts if script.strip()] == []
    assert page.styles == page.style_attributes == page.inline_handlers == []
    assert all(address.startswith("/") for _, address in page.addresses if address[0] not in "#?")
    return page
