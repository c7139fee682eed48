"""Uploads are read as on a server: by processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from tests.service.serving import serving


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    with serving(settings, reads_apart=True) as http:
        yield http
