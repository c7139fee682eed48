"""The command that deletes what nobody needs; it works on the database and the store themselves,
with the server's settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from search.errors import SnugnetError
from service.cli.connection import DataDir
from service.cli.output import Format, Output, show
from service.cli.roles import server_settings
from service.cli.tables import make_table, print_table
from service.embedded.instance import DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from service.artifacts.gc import GcReport


class NotCollected(SnugnetError):
    """There is something that a person has to look at."""

    code = "not_collected"


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    output: Output = Format.TABLE,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Delete files that nobody needs, as far as retention allows; run where the server's settings
    are. Beside a running service it does no harm."""
    settings = server_settings(data_dir=data_dir)
    from service.artifacts.gc import collect as collect_garbage
    from service.database.db import Database
    from service.store.opening import open_store
    from service.store.protocol import StoreUnavailable

    database = Database(settings.database_url)
    try:
        report = collect_garbage(database, open_store(settings), settings, dry_run=dry_run)
    except StoreUnavailable as error:
        raise NotCollected(str(error)) from None
    finally:
        database.dispose()
    show(asdict(report), output, lambda: _print(report))
    if report.missing:
        raise NotCollected(f"{len(report.missing)} files that are needed are not in the store")


def _print(report: GcReport) -> None:
    table = make_table("would be deleted" if report.is_dry_run else "deleted", "count", "bytes")
    for name, tally in sorted(report.classes.items()):
        table.add_row(name, f"{tally.num:,}", f"{tally.size_bytes:,}" if tally.size_bytes else "")
    print_table(table)
    for sha256 in report.missing:
        typer.echo(f"missing: {sha256}", err=True)
