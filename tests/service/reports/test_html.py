"""The report as one file: it needs no network, and tables and pictures have the same data."""

from __future__ import annotations

import base64
import hashlib

import pytest

from service.reports.html import SCRIPTS, chart_data, render_html
from service.reports.schema import JobReport
from tests.service.reports.pages import Page


@pytest.fixture(scope="module")
def page(report: JobReport) -> Page:
    return Page(render_html(report))


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert page.loaded == []
    assert page.inline_handlers == []
    policy = page.metas["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_no_script_runs_but_those_that_draw(page: Page) -> None:
    assert len(page.scripts) == len(SCRIPTS)
    policy = page.metas["Content-Security-Policy"]
    for script in page.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_every_chart_is_there_as_data_and_as_a_table_of_the_same(
    page: Page, report: JobReport
) -> None:
    assert list(page.charts) == [chart.key for chart in report.charts]
    for chart in report.charts:
        drawn = page.charts[chart.key]
        assert drawn.data == chart_data(chart)
        assert drawn.header == chart.columns
        assert drawn.rows == list(chart.rows())
        assert len(drawn.rows) == chart.num_points + len(chart.guides) > 0


def test_the_figures_of_every_target_can_be_read(page: Page, report: JobReport) -> None:
    for target in report.targets:
        assert target.sentence in page.text
        assert target.asked.sentence in page.text
        for file in target.files:
            assert file.sha256 in page.text


def test_what_people_wrote_is_shown_and_never_run(report: JobReport) -> None:
    name = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    page = Page(render_html(report.model_copy(update={"name": name, "headline": name})))
    assert len(page.scripts) == len(SCRIPTS)
    assert page.loaded == []
    assert page.inline_handlers == []
    assert name in page.text
