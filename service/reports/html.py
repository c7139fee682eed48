"""The report as one HTML file that needs no network: styles, scripts and data are inside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from service.reports.charts import Chart
from service.reports.schema import JobReport
from service.reports.words import (
    QUALITY_WORDS,
    in_words,
    quality_text,
    source_word,
    targets_phrase,
    times_text,
)
from service.web.formats import FILTERS as FORMATS

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent.parent / "web" / "static"
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
STYLES = ("snugnet.css", "vendor/uPlot.min.css", "charts.css", "figures.css", "report.css")
SCRIPTS = ("vendor/uPlot.iife.min.js", "chart-scales.js", "charts.js")


def render_html(report: JobReport) -> str:
    scripts = [_static(name) for name in SCRIPTS]
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            styles=Markup("\n".join(_static(name) for name in STYLES)),
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts),
        )
    )


def chart_data(chart: Chart) -> dict[str, Any]:
    """What charts.js draws."""
    return chart.model_dump(mode="json", exclude_defaults=True)


def metric_word(metric: str) -> str:
    return QUALITY_WORDS.get(metric, metric.replace("_", " "))


FILTERS: dict[str, Callable[..., Any]] = {
    **FORMATS,  # type: ignore[dict-item]
    "chart_data": chart_data,
    "in_words": in_words,
    "metric_word": metric_word,
    "quality": quality_text,
    "source_word": source_word,
    "targets_phrase": targets_phrase,
    "times": times_text,
}
"""Those of every page, and what parts of a report need beside them."""
TESTS = {"fingerprint": lambda text: FINGERPRINT.fullmatch(text) is not None}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    environment.tests |= TESTS
    return environment


@cache
def _static(name: str) -> str:
    text = (STATIC / name).read_text(encoding="utf-8")
    assert "</script" not in text, f"{name} would end the element that it stands in"
    assert "</style" not in text, f"{name} would end the element that it stands in"
    return text


def _policy(scripts: list[str]) -> str:
    """Nothing is fetched, and no script runs but the report's own."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}"
