"""Searches and networks side by side."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from service.reports.schema import JobReport
from service.reports.words import targets_phrase
from tests.service.web.browsing import text_of
from tests.service.web.finished import (
    _one_thread,
    browser,
    files,
    open_workshop,
    page_of,
    report,
    stranger,
    whole_job,
)

__all__ = ["_one_thread", "browser", "files", "open_workshop", "report", "stranger", "whole_job"]


def query(*items: str) -> str:
    return "/compare?" + "&".join(f"item={item}" for item in items)


def test_what_there_is_can_be_chosen(browser: TestClient, report: JobReport) -> None:
    page = browser.get("/compare").text
    assert f'value="{report.id}"' in page
    for target in report.targets:
        assert page.count(f'value="{report.id}/{target.fingerprint}"') == 1


def test_a_search_and_its_network_stand_side_by_side(
    browser: TestClient, report: JobReport
) -> None:
    target = report.targets[0]
    page = page_of(browser, query(report.id, f"{report.id}/{target.fingerprint}"))
    assert "2 side by side" in page.text
    labels = {series["label"]: series for series in page.charts["compared"].data["series"]}
    name = report.name or report.id
    # Both targets may have come to the same network.
    own = [t for t in report.targets if t.fingerprint == target.fingerprint]
    title = f"{name}: {targets_phrase([t.index for t in own])}"
    assert set(labels) == {name, f"{name}: front", title}
    assert labels[title]["x"] == pytest.approx([t.p50_ms for t in own], rel=1e-5)
    assert len(page.charts["compared"].rows) == sum(len(s["x"]) for s in labels.values())


def test_too_many_are_refused_with_the_choice_kept(browser: TestClient, report: JobReport) -> None:
    items = [f"{report.id}/{n}" for n in range(7)]
    answer = browser.get(query(*items))
    assert answer.status_code == 422
    assert "choose from 2 to 6" in text_of(answer.text)


def test_one_alone_leads_to_the_choice_with_it_chosen(
    browser: TestClient, report: JobReport
) -> None:
    item = f"{report.id}/{report.targets[0].fingerprint}"
    assert f'value="{item}" checked' in browser.get(query(item)).text


def test_another_tenants_searches_are_neither_offered_nor_compared(
    stranger: TestClient, report: JobReport
) -> None:
    assert report.id not in stranger.get("/compare").text
    assert stranger.get(query(report.id, f"{report.id}/x")).status_code == 404
