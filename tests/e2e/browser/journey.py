"""A job from the form to its files, in a browser that nobody reloads, while the API is killed."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import yaml

from service.embedded.instance import Instance
from tests.e2e.browser.browsing import Tab, opened
from tests.workers.steps import tiny_job

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

PATIENCE_MS = 60_000.0
NAME = "two words that tell all"
# The rest is for the fields of the form.
IN_YAML = ("space", "training", "search", "measuring", "robustness", "seed")
LONGER_SEARCH = {"population": 6, "generations": 6, "fidelity_rows": 40}
LONGER_END = {"distill_epochs": 12}
"""The API is back before the job ends."""
EXPECTED = ("net::ERR_", "status of 422")
WANTED = (".onnx", ".safetensors", "manifest.json")
ANY_UPLOAD = re.compile("up_.+")
FRONT = "#chart-front"
IS_SHOWN = f"() => document.querySelectorAll('{FRONT} tbody tr').length >= 3"
IS_FINISHING = """() => [...document.querySelectorAll("#part-stages tbody tr")].some((row) =>
  row.cells[0].textContent === "finish" && row.querySelector("[data-state=running]"))"""
HAS_ENDED = """() => ["succeeded", "failed", "cancelled"].includes(
  document.querySelector("#part-head .badge")?.dataset.state)"""
TOLD_AWAY = "() => document.querySelector('#live-status')?.textContent.includes('away')"

Point = tuple[str, str, str]
"""Of a table: series, name of the network, latency."""


@dataclass(kw_only=True)
class Journey:
    """What was seen on the way.

    Attributes:
        refusal: what stood beside the field that was left empty.
        points: of the table under the front, when the search was over and the job was not.
        num_rows: of the same table.
        num_drawn: points of the picture, lines across it included.
        was_reloaded: whether that page was another one than at the beginning.
        was_away: whether it said so when the API was killed.
        downloads: SHA-256 beside each file, and that of what was downloaded.
        errors: what the browser complained of, but for the connections that broke and the answer
            to the form with a mistake.
    """

    job_id: str
    model: Path
    data: Path
    refusal: str
    points: Counter[Point] = field(default_factory=Counter)
    num_rows: int = 0
    num_drawn: int = 0
    was_reloaded: bool = True
    was_away: bool = False
    downloads: dict[str, tuple[str, str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def travel(browser: Browser, service: Instance, folder: Path) -> Journey:
    model = tiny_job.write_model(folder / "model")
    data = write_csv(folder)
    with opened(browser, service.url) as tab:
        tab.page.set_default_timeout(PATIENCE_MS)
        tab.sign_in(service.api_key)
        refusal = fill_in(tab, model, data)
        tab.page.wait_for_url("**/jobs/job_*")
        job_id = tab.path.rsplit("/", 1)[-1]
        journey = Journey(job_id=job_id, model=model, data=data, refusal=refusal)
        watch(tab, service, journey)
        download_all(tab, journey)
        journey.errors = [
            error for error in tab.traffic.errors if not any(map(error.__contains__, EXPECTED))
        ]
        return journey


def write_csv(folder: Path) -> Path:
    lines = tiny_job.write_data(folder / "rows.jsonl").read_text().splitlines()
    path = folder / "reviews.csv"
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, ["text", "label"])
        rows.writeheader()
        rows.writerows(map(json.loads, lines))
    return path


# --- the form -----------------------------------------------------------------------------------


def fill_in(tab: Tab, model: Path, data: Path) -> str:
    """Once with a mistake, once without; what the page said of the mistake."""
    from playwright.sync_api import expect

    page = tab.page
    page.get_by_role("link", name="New job").click()
    upload(tab, "model", sorted(model.iterdir()))
    upload(tab, "dataset", [data])
    page.get_by_label("Name", exact=True).fill(NAME)
    page.get_by_text("compression and anything else").click()
    page.get_by_label("Anything else, as YAML").fill(rest_as_yaml())
    page.get_by_role("button", name="Start the job").last.click()
    budget = page.get_by_label("Latency at most").first
    expect(budget).to_have_attribute("aria-invalid", "true", timeout=PATIENCE_MS)
    described_by = (budget.get_attribute("aria-describedby") or "").split()[0]
    refusal = page.locator(f'[id="{described_by}"]').inner_text()
    budget.fill("100")
    page.get_by_role("button", name="Add a target").click()
    second = page.get_by_label("Latency at most").nth(1)
    second.fill("90")
    page.get_by_role("button", name="Start the job").last.click()
    return refusal


def upload(tab: Tab, kind: str, paths: list[Path]) -> None:
    """As a person does: choose files, send them, and see them chosen in the form."""
    from playwright.sync_api import expect

    box = tab.page.locator(f'[data-upload="{kind}"]')
    box.locator("summary").click()
    box.locator("input[type=file]").set_input_files(paths)
    box.get_by_role("button", name="Upload").click()
    into = tab.page.locator(f'[name="{box.get_attribute("data-into")}"]')
    expect(into).to_have_value(ANY_UPLOAD, timeout=PATIENCE_MS)


def rest_as_yaml() -> str:
    spec = {**tiny_job.spec("", ""), "search": LONGER_SEARCH}
    spec["training"] = {**spec["training"], **LONGER_END}
    return yaml.safe_dump({name: spec[name] for name in IN_YAML})


# --- the job's page -----------------------------------------------------------------------------


def watch(tab: Tab, service: Instance, journey: Journey) -> None:
    """To the end of the job; when its first networks are on the page, the API is killed."""
    page = tab.page
    page.evaluate("() => { window.isTheSame = true; }")
    page.wait_for_function(IS_SHOWN)
    kill_api(service)
    page.wait_for_function(TOLD_AWAY)
    journey.was_away = True
    page.wait_for_function(f"() => ({IS_FINISHING})() || ({HAS_ENDED})()")
    read_front(tab, journey)
    journey.was_reloaded = not page.evaluate("() => Boolean(window.isTheSame)")
    page.wait_for_function(HAS_ENDED)


def kill_api(service: Instance) -> None:
    assert service.pid is not None
    children = psutil.Process(service.pid).children()
    (api,) = [one for one in children if "service.server" in one.cmdline()]
    api.send_signal(signal.SIGKILL)


def read_front(tab: Tab, journey: Journey) -> None:
    figure = tab.page.locator(FRONT)
    names = figure.locator("thead th").all_text_contents()
    latency = next(place for place, name in enumerate(names) if name.startswith("latency"))
    rows = figure.locator("tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    journey.num_rows = len(rows)
    journey.points = Counter(
        (row[names.index("series")], row[names.index("name")], row[latency]) for row in rows
    )
    journey.num_drawn = figure.locator("script.chart-data").evaluate(
        "(data) => JSON.parse(data.textContent).series.reduce((sum, one) => sum + one.x.length, 0)"
        " + (JSON.parse(data.textContent).guides || []).length"
    )


def download_all(tab: Tab, journey: Journey) -> None:
    """The job's own files, and of the first target's network those with weights and the manifest:
    a browser asks before it takes more than ten from a page."""
    download(tab, tab.page.locator("#part-files tbody tr").all(), journey)
    tab.page.locator("#part-targets").get_by_role("link").first.click()
    tab.page.wait_for_url("**/subnets/**")
    rows = tab.page.locator("table.files").first.locator("tbody tr").all()
    download(
        tab, [row for row in rows if row.locator("th").inner_text().endswith(WANTED)], journey
    )


def download(tab: Tab, rows: list[Locator], journey: Journey) -> None:
    for row in rows:
        link = row.get_by_role("link").first
        with tab.page.expect_download() as waiting:
            link.click()
        content = Path(waiting.value.path()).read_bytes()
        told = row.locator("code.hash").inner_text()
        journey.downloads[link.inner_text()] = (told, hashlib.sha256(content).hexdigest())
