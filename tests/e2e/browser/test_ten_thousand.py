"""The front with ten thousand networks stays a thing that one can work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from service.database.db import Database
from service.database.ids import new_id
from service.database.models import EvaluationRow
from service.jobs.events import append_event
from service.tenants.tenancy import DEFAULT_TENANT
from tests.e2e.browser.browsing import Tab, opened
from tests.e2e.browser.exhibition import MANY
from tests.e2e.browser.specimens import Specimen, event_of
from tests.e2e.browser.views import VIEWS, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

MAX_TASK_MS = 200.0
MAX_ROUNDS = 3
"""The machine is shared with the services, and others: a round is disturbed, three are not."""

OBSERVE = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) longTasks.push([task.startTime, task.duration]);
}).observe({ type: "longtask", buffered: true });
"""
AFTER_LOAD = """() => {
  const loaded = performance.getEntriesByType("navigation")[0].loadEventEnd;
  return longTasks.filter(([start]) => start > loaded).map(([, duration]) => duration);
}"""
NUM_POINTS = """() => {
  const data = document.querySelector("#chart-front script.chart-data");
  const points = JSON.parse(data.textContent).series.filter((one) => one.mark === "points");
  return points.reduce((sum, one) => sum + one.x.length, 0);
}"""


BE_BUSY = """() => setTimeout(() => {
  const end = performance.now() + 250;
  while (performance.now() < end);
})"""


def test_a_long_task_would_be_seen(browser: Browser, site: Site) -> None:
    with opened(browser, site.showcase.url, state=site.showcase_state) as tab:
        tab.page.add_init_script(OBSERVE)
        tab.open("/jobs")
        tab.page.evaluate(BE_BUSY)
        tab.page.wait_for_function(f"() => ({AFTER_LOAD})().some((ms) => ms > {MAX_TASK_MS})")


def test_no_long_task_while_somebody_works_with_it(browser: Browser, site: Site) -> None:
    view = VIEWS["job-many-networks"](site)
    longest = []
    for _ in range(MAX_ROUNDS):
        with opened(browser, view.url, state=view.state) as tab:
            tab.page.add_init_script(OBSERVE)
            tab.open(view.path)
            assert tab.page.evaluate(NUM_POINTS) >= MANY
            work_with(tab)
            longest.append(max(tab.page.evaluate(AFTER_LOAD), default=0.0))
        if longest[-1] <= MAX_TASK_MS:
            break
    print(f"longest tasks after load, ms: {longest}")
    assert min(longest) <= MAX_TASK_MS


def work_with(tab: Tab) -> None:
    """Point, zoom in and out, hide and show, open the table, switch the theme."""
    page = tab.page
    box = page.locator("#chart-front .u-over").bounding_box()
    assert box is not None
    left, top, width, height = (box[name] for name in ("x", "y", "width", "height"))
    for step in range(25):
        page.mouse.move(left + width * step / 25, top + height * (step % 7 + 1) / 9)
    page.mouse.move(left + 0.3 * width, top + 0.3 * height)
    page.mouse.down()
    page.mouse.move(left + 0.6 * width, top + 0.7 * height, steps=8)
    page.mouse.up()
    page.mouse.dblclick(left + 0.5 * width, top + 0.5 * height)
    entry = page.locator("#chart-front .chart-legend button").first
    entry.click()
    entry.click()
    page.locator("#chart-front summary").click()
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_timeout(300)


def test_no_long_task_when_another_network_arrives(
    browser: Browser, site: Site, showcase_database: Database
) -> None:
    job_id = site.exhibition.growing
    like = Specimen.read(showcase_database, job_id).evaluations[0]
    longest = []
    for place in range(MAX_ROUNDS):
        with opened(browser, site.showcase.url, state=site.showcase_state) as tab:
            tab.page.add_init_script(OBSERVE)
            tab.open(f"/jobs/{job_id}")
            num_before = tab.page.evaluate(NUM_POINTS)
            arrive(showcase_database, {**like, "generation": 1000, "index_in_generation": place})
            tab.page.wait_for_function(f"() => ({NUM_POINTS})() === {num_before + 1}")
            tab.page.wait_for_timeout(300)
            longest.append(max(tab.page.evaluate(AFTER_LOAD), default=0.0))
        if longest[-1] <= MAX_TASK_MS:
            break
    print(f"longest tasks as one arrived, ms: {longest}")
    assert min(longest) <= MAX_TASK_MS


def arrive(database: Database, row: dict[str, object]) -> None:
    fingerprint = f"{int(str(row['index_in_generation'])):016x}"
    row = {**row, "id": new_id("eval"), "fingerprint": fingerprint}
    with database.for_tenant(DEFAULT_TENANT).write() as session:
        session.execute(insert(EvaluationRow), [row])
        event = event_of(row)
        append_event(session, str(row["job_id"]), event["kind"], event["message"], event["data"])
