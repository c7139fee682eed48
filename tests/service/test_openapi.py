"""The description of the API that is kept in the repository is the API's."""

from __future__ import annotations

import json
from pathlib import Path

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
