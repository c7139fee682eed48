"""Whether this installation can do what it is for, and what to do where it cannot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from rich.text import Text

from service.cli.connection import KEY_VARIABLE, ApiKey, DataDir, Url
from service.cli.errors import JOB_FAILED
from service.cli.output import Format, Output, show
from service.cli.tables import make_table, print_table
from service.embedded.diagnosis import FAIL, OK, WARN, Check, examine
from service.embedded.instance import DEFAULT_DATA_DIR
from service.secret_values import read_secret

STYLES = {OK: "green", WARN: "yellow", FAIL: "red"}


def doctor(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Check this installation and the service that it uses.

    Ends with 1 when a check fails; a warning says what does not work, or not yet.
    """
    key = api_key if api_key is not None else read_secret(KEY_VARIABLE)
    checks = examine(data_dir.expanduser().resolve(), url, key)
    found: dict[str, Any] = {"checks": [check.to_dict() for check in checks]}
    show(found, output, lambda: _print(checks))
    if any(check.state == FAIL for check in checks):
        raise typer.Exit(JOB_FAILED)


def _print(checks: Iterable[Check]) -> None:
    table = make_table("", "check", "found", "what to do")
    for check in checks:
        state = Text(check.state, style=STYLES[check.state])
        table.add_row(state, check.name, check.found, check.advice)
    print_table(table)
