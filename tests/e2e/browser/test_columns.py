"""Data whose columns are called otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.embedded.instance import Instance
from tests.e2e.browser.browsing import opened
from tests.e2e.browser.journey import ANY_UPLOAD, PATIENCE_MS
from tests.service.serving import write_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_a_column_that_is_not_found_is_asked_for(
    browser: Browser, working: Instance, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    data = write_data(tmp_path / "reviews.csv", header="review,sentiment")
    with opened(browser, working.url) as tab:
        page = tab.page
        page.set_default_timeout(PATIENCE_MS)
        tab.sign_in(working.api_key)
        tab.open("/jobs/new")
        box = page.locator('[data-upload="dataset"]')
        box.locator("summary").click()
        box.locator("input[type=file]").set_input_files(data)
        for label, name, told in (
            ("Texts", "review", "column 'text' is missing; the header has 'review', 'sentiment'"),
            ("Labels", "sentiment", "column 'label' is missing"),
        ):
            box.get_by_role("button", name="Upload").click()
            field = page.get_by_label(label, exact=True).first
            expect(field).to_be_focused(timeout=PATIENCE_MS)
            expect(box.locator("[data-status]")).to_contain_text(told)
            field.fill(name)
        box.get_by_role("button", name="Upload").click()
        into = page.locator('[name="data.upload"]')
        expect(into).to_have_value(ANY_UPLOAD, timeout=PATIENCE_MS)
        expect(into.locator("option:checked")).to_contain_text("reviews.csv, 40 rows")
