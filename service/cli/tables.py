"""Tables and times as every command prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.table import Table

LONGEST_ROW = 2000


def make_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """On a terminal long cells are wrapped; piped into another program, a row stays one line."""
    # No markup: a message may hold brackets of its own.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=LONGEST_ROW)
    for column in table.columns[1:]:
        column.no_wrap = not console.is_terminal
    console.print(table, crop=False)


def print_facts(facts: Mapping[str, object]) -> None:
    """A line for each, in two columns."""
    width = max(map(len, facts))
    for title, value in facts.items():
        typer.echo(f"{title:{width}}  {value}")


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def utc(epoch_s: float | None) -> str:
    if epoch_s is None:
        return ""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
