"""Cursors of pages."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest

from search.errors import InvalidInput
from service.api.feeds import cursor_after, read_cursor
from service.database.ids import new_id


@dataclass(frozen=True)
class Row:
    id: str
    created_at: float


def test_a_cursor_leads_back_to_its_row() -> None:
    row = Row(new_id("job"), 1_800_000_000.123456)
    assert read_cursor(cursor_after(row)) == (row.created_at, row.id)
    assert read_cursor(None) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "[1]", "[1, 2, 3]", '{"a": 1}', "[1, null]", "[1, 2]", '["1", "job_a"]'),
        *('[NaN, "job_a"]', '[1e999, "job_a"]', f'[{"9" * 400}, "job_a"]'),
        *('[1, "\\ud800"]', '[1, "a\\u0000"]', '[1, ["job_a"]]', "[" * 3000),
    ],
)
def test_what_another_made_up_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        read_cursor(base64.urlsafe_b64encode(text.encode()).decode().rstrip("="))


@pytest.mark.parametrize("cursor", ["A", "é", "!!!!", "=", "\ud800"])
def test_what_is_no_base64_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        read_cursor(cursor)
