"""Pictures and the tables beside them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser.browsing import opened
from tests.e2e.browser.views import VIEWS, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

WITH_CHARTS = (
    "job-finished",
    "job-one-network",
    "subnet",
    "compare-jobs",
    "compare-subnets",
    "device",
)
COUNTS = """() => [...document.querySelectorAll("figure[data-chart]")].map((figure) => {
  const chart = JSON.parse(figure.querySelector("script.chart-data").textContent);
  const points = chart.series.reduce((sum, series) => sum + series.x.length, 0);
  const hasCanvas = figure.querySelector("canvas") !== null;
  const rows = figure.querySelectorAll("details tbody tr").length;
  return [figure.dataset.chart, points + (chart.guides || []).length, rows, hasCanvas];
})"""


@pytest.mark.parametrize("name", WITH_CHARTS)
def test_every_chart_is_drawn_and_has_a_table_with_the_same_points(
    browser: Browser, site: Site, name: str
) -> None:
    view = VIEWS[name](site)
    with opened(browser, view.url, state=view.state) as tab:
        tab.open(view.path)
        charts = tab.page.evaluate(COUNTS)
        print(name, charts)
        assert charts
        for key, num_points, num_rows, is_drawn in charts:
            assert is_drawn, key
            assert num_points == num_rows > 0, key


def test_ten_thousand_points_are_all_in_the_table_page_by_page_and_as_csv(
    browser: Browser, site: Site
) -> None:
    view = VIEWS["job-many-networks"](site)
    with opened(browser, view.url, state=view.state) as tab:
        tab.open(view.path)
        counts = {key: num_points for key, num_points, _, _ in tab.page.evaluate(COUNTS)}
        assert counts["front"] > 10_000
        path = f"{view.path}/charts/front.csv"
        text = tab.page.evaluate("async (path) => (await fetch(path)).text()", path)
        assert len(list(csv.DictReader(io.StringIO(text)))) == counts["front"]
        tab.page.goto(f"{view.url}{view.path}/charts/front")
        tab.page.get_by_role("link", name="After").click()
        assert f"of {counts['front']:,}" in tab.page.locator("main").inner_text()
