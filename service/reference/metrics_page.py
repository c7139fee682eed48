"""The metrics, from where they are made: counters in `telemetry.metrics`; gauges by reading the
source that reads the tables, since some are there only when the tables hold something."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from prometheus_client import Counter, Histogram

from service.reference.markdown import code, page, table
from service.telemetry import metrics, metrics_database

INTRODUCTION = """\
What `/metrics` answers, in Prometheus's text format;
[Operations](../operations.md#what-to-watch) says who may read it, which alerts go with it and
what to do then. No metric holds a name of a tenant, a job or a device."""
OF_DATABASE = """\
Gauges of the database are read anew for each scrape and are the same in every API process: take
`max`, not `sum`."""
OF_PROCESSES = """\
Counters and histograms belong to a process: take `sum(rate(...))`."""
COLUMNS = ("metric", "kind", "labels", "is")


def document() -> str:
    return page(
        "Metrics",
        INTRODUCTION,
        "## Of the database",
        OF_DATABASE,
        table(COLUMNS, sorted(_gauges())),
        "## Of each process",
        OF_PROCESSES,
        table(COLUMNS, sorted(_counted())),
    )


def _counted() -> Iterator[tuple[str, str, str, str]]:
    for value in vars(metrics).values():
        if isinstance(value, Counter | Histogram):
            (family,) = value.describe()
            name = f"{family.name}_total" if isinstance(value, Counter) else family.name
            labels = ", ".join(map(code, value._labelnames))
            yield code(name), family.type, labels, family.documentation


def _gauges() -> Iterator[tuple[str, str, str, str]]:
    """Calls of `_gauge(name, text, value)` and `_labelled(name, text, labels, ...)`."""
    for node in ast.walk(ast.parse(inspect.getsource(metrics_database))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id in ("_gauge", "_labelled") and isinstance(node.args[0], ast.Constant):
            name, text = (ast.literal_eval(argument) for argument in node.args[:2])
            labels = ast.literal_eval(node.args[2]) if node.func.id == "_labelled" else ()
            yield code(name), "gauge", ", ".join(map(code, labels)), text
