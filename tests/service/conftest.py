from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.client import Client
from service.settings import Settings
from tests.service.serving import sdk, serving


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    with serving(settings) as client:
        yield client


@pytest.fixture
def client(http: TestClient) -> Iterator[Client]:
    with sdk(http) as client:
        yield client
