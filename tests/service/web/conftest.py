"""Somebody signed in, and another tenant beside them."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from service.database.db import Database
from service.database.models import Tenant
from service.tenants.auth import create_key
from tests.service.web.browsing import signed_in

OTHER = "ten_other"


@pytest.fixture
def browser(http: TestClient) -> TestClient:
    return signed_in(http)


@pytest.fixture
def others_key(database: Database) -> str:
    """Of the other tenant."""
    with database.for_tenant(OTHER).write() as session:
        session.add(Tenant(id=OTHER, name="other"))
        return create_key(session, "theirs")
