"""What axe-core finds wrong with a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

COUNTED = ("serious", "critical")


def violations_of(page: Page) -> list[str]:
    """The serious and the critical ones, one line an element."""
    from axe_playwright_python.sync_playwright import Axe

    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['target'][0]}: {_why(node)}"
        for one in found
        if one["impact"] in COUNTED
        for node in one["nodes"]
    ]


def _why(node: dict[str, Any]) -> str:
    checks = [*node["any"], *node["all"], *node["none"]]
    return "; ".join(check["message"] for check in checks) or node["html"][:120]
