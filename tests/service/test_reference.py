"""The reference pages that are kept in the repository are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from service import openapi
from service.jobs.job_spec import JobSpec
from service.reference.markdown import prose, table
from service.reference.pages import PAGES
from service.settings import Settings
from service.telemetry.metrics import exposition

KEPT = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_the_kept_page_has_not_drifted(name: str) -> None:
    assert (KEPT / name).read_text(encoding="utf-8") == PAGES[name](), (
        "the code has changed: look at the difference, then run `python -m service.reference`"
    )


def test_no_page_is_kept_that_is_not_made() -> None:
    assert {path.name for path in KEPT.iterdir()} == set(PAGES)


def test_every_setting_is_explained() -> None:
    page = PAGES["configuration.md"]()
    for name in Settings.model_fields:
        (row,) = re.findall(rf"^\| `SNUGNET_{name.upper()}` \|.*$", page, re.M)
        meaning = row.split(" | ")[-1].strip(" |")
        assert len(meaning) > 10, f"{name} has no docstring"


def test_every_command_has_a_section_that_the_overview_leads_to() -> None:
    page = PAGES["command-line.md"]()
    named = re.findall(r"^\| \[`(.+?)`\]\(#(.+?)\)", page, re.M)
    assert [name.replace(" ", "-") for name, _ in named] == [anchor for _, anchor in named]
    assert [name for name, _ in named] == re.findall(r"^## (snugnet .+)$", page, re.M)
    assert {"snugnet submit", "snugnet devices", "snugnet keys create"} <= {n for n, _ in named}
    assert "| `--watch`, `--follow` |" in page
    assert "`SNUGNET_API_KEY`" in page


def test_every_operation_and_every_key_of_a_job_is_there() -> None:
    rest, job_file = PAGES["rest.md"](), PAGES["job-file.md"]()
    for path, operations in json.loads(openapi.document())["paths"].items():
        for method in operations:
            assert f"\n### {method.upper()} {path}\n" in rest
    for key in JobSpec.model_fields:
        assert f"\n| `{key}` |" in job_file
    for title in ("quantize", "trim-vocabulary", "distill"):
        assert f"\n### {title}\n" in job_file


def test_every_counter_of_a_process_is_there() -> None:
    page = PAGES["metrics.md"]()
    families = set(re.findall(r"^# TYPE (snugnet_\w+) ", exposition().decode(), re.M))
    assert families
    for family in families:
        is_made_at = family.endswith("_created")
        assert is_made_at or f"| `{family}` |" in page


def test_lines_of_a_docstring_are_joined_and_arguments_become_a_list() -> None:
    text = "First\nsentence.\n\nArgs:\n    state: of these\n        alone.\n    label: a key."
    assert prose(text) == "First sentence.\n\n- `state`: of these alone.\n- `label`: a key."


def test_a_table_leaves_out_what_no_row_has_and_keeps_bars_inside_their_cell() -> None:
    made = table(("a", "b", "c"), [("1", "", "x|y"), ("2", "", "two\nlines")])
    assert made.splitlines() == [
        "| a | c |",
        "| --- | --- |",
        "| 1 | x\\|y |",
        "| 2 | two lines |",
    ]
    assert table(("a",), []) == ""
