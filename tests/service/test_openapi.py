"""The description of the API that is kept in the repository is the API's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from service.openapi import document

KEPT = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_kept_description_has_not_drifted() -> None:
    assert KEPT.read_text() == document(), (
        "the API has changed: look at the difference, then run "
        "`python -m service.openapi > docs/openapi.json`"
    )


def test_every_operation_tells_its_errors_as_problems() -> None:
    for path, operations in json.loads(document())["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"], (method, path)


def test_every_operation_has_a_name_of_its_own_that_a_program_can_be_written_with() -> None:
    operations = _operations()
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names), names
    assert {"search_jobs_list", "search_jobs_submit", "webhooks_rotate_secret"} <= set(names)
    summaries = [operation["summary"] for operation in operations]
    assert len(set(summaries)) == len(summaries)
    assert "Webhooks: rotate secret" in summaries


def test_the_key_is_asked_of_every_operation_but_those_of_the_server_itself() -> None:
    (scheme,) = json.loads(document())["components"]["securitySchemes"].items()
    assert (scheme[1]["type"], scheme[1]["scheme"]) == ("http", "bearer")
    open_to_all = {o["operationId"] for o in _operations() if not o.get("security")}
    assert open_to_all == {
        "server_healthz",
        "server_readyz",
        "server_info",
        "artifacts_signing_keys",
    }


def _operations() -> list[dict[str, Any]]:
    paths = json.loads(document())["paths"].values()
    return [operation for operations in paths for operation in operations.values()]
