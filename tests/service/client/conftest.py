"""Either client."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.service.client.scripted import CLIENTS, Call


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Callable[..., Call]:
    """With a URL, a key and options: what calls its methods by name."""
    return CLIENTS[request.param]
