"""A format that the worker cannot write is refused where the server knows the worker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.client import Rejected
from service.settings import Settings
from tests.service.serving import sdk, serving, upload_both


@pytest.mark.parametrize("is_here", [True, False])
def test_only_a_server_beside_its_worker_refuses_what_is_not_installed(
    settings: Settings, is_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    settings = settings.model_copy(update={"worker_is_here": is_here})
    with serving(settings) as http, sdk(http) as client:
        spec = {**upload_both(client, tmp_path), "exports": ["pt2", "openvino-int8"]}
        if not is_here:
            assert client.submit(spec).id
            return
        with pytest.raises(Rejected) as refused:
            client.submit(spec)
    (error,) = refused.value.problem.errors
    assert error.field == "exports[1]"
    assert "nncf" in error.reason
    assert "pip install 'snugnet[exports]'" in error.reason


def test_what_is_installed_is_taken(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"worker_is_here": True})
    with serving(settings) as http, sdk(http) as client:
        spec = {**upload_both(client, tmp_path), "exports": ["openvino-int8"]}
        assert client.submit(spec).id
