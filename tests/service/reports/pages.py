"""A page as a browser takes it apart: what it loads, its charts' data, and its tables."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

LOADING = ("src", "href", "srcset", "data", "poster", "action", "background", "xlink:href")


@dataclass
class Drawn:
    """A chart of a page: what the script is given, and the cells of the table beside it."""

    data: dict[str, Any] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class Page(HTMLParser):
    """Attributes:
    addresses: of everything that an element names, fetched or not.
    scripts: those that run.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.inline_handlers: list[str] = []
        self.style_attributes: list[str] = []
        self.metas: dict[str, str] = {}
        self.charts: dict[str, Drawn] = {}
        self.text = ""
        self._chart: Drawn | None = None
        self._within = ""
        self._is_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.addresses += [(tag, given[name]) for name in LOADING if name in given]
        self.inline_handlers += [name for name in given if name.startswith("on")]
        self.style_attributes += [given["style"]] if "style" in given else []
        if tag == "meta" and "http-equiv" in given:
            self.metas[given["http-equiv"]] = given["content"]
        if tag == "figure" and "data-chart" in given:
            self._chart = self.charts[given["data-chart"]] = Drawn()
        if tag in ("script", "style"):
            self._within = tag
            self._is_data = given.get("type") == "application/json"
            if not self._is_data:
                (self.scripts if tag == "script" else self.styles).append("")
        elif self._chart is not None:
            if tag == "tr":
                self._chart.rows.append([])
            elif tag in ("td", "th"):
                self._chart.rows[-1].append("")
                self._within = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""
        if tag == "figure" and self._chart is not None:
            if self._chart.rows:
                self._chart.header, *self._chart.rows = self._chart.rows
            self._chart = None

    def handle_data(self, data: str) -> None:
        if self._within == "script" and self._is_data:
            assert self._chart is not None
            self._chart.data = json.loads(data)
        elif self._within == "script":
            self.scripts[-1] += data
        elif self._within == "style":
            self.styles[-1] += data
        elif self._within and self._chart is not None:
            self._chart.rows[-1][-1] += data
        self.text += data if self._within not in ("script", "style") else ""

    @property
    def loaded(self) -> list[str]:
        """Addresses that a browser would fetch by itself."""
        from_styles = [
            address
            for style in self.styles
            for address in re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", style)
        ]
        own = [address for tag, address in self.addresses if tag not in ("a", "form")]
        return [*own, *map(str, from_styles)]
