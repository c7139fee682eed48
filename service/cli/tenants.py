"""Commands for tenants, on a machine that reaches the service's database: no API key reaches
beyond its own tenant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.errors import InvalidInput
from service.cli.output import Format, Output, show
from service.cli.roles import server_settings
from service.cli.tables import make_table, print_table, utc

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NO_LIMIT = "none"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a tenant.")]
MaxRunning = Annotated[
    str | None, typer.Option(help="Search jobs that run at once; further ones wait in the queue.")
]
MaxQueued = Annotated[str | None, typer.Option(help="Search jobs that wait.")]
MaxEvaluations = Annotated[str | None, typer.Option(help="Networks that one search evaluates.")]
MaxBytes = Annotated[str | None, typer.Option(help="Of uploads and artifacts.")]

app = typer.Typer(
    help="Make tenants, limit them, and give them their first key. Needs the database, not a key.",
    no_args_is_help=True,
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    max_running_jobs: MaxRunning = None,
    max_queued_jobs: MaxQueued = None,
    max_evaluations: MaxEvaluations = None,
    max_bytes: MaxBytes = None,
) -> None:
    """Make a tenant and print its id."""
    limits = _limits(
        max_running_jobs=max_running_jobs,
        max_queued_jobs=max_queued_jobs,
        max_evaluations=max_evaluations,
        max_bytes=max_bytes,
    )
    with _writing() as session:
        from service.tenants.tenants import create_tenant, set_limits

        tenant = create_tenant(session, name)
        set_limits(session, tenant, limits)
        typer.echo(tenant.id)


@app.command("list")
def list_all(output: Output = Format.TABLE) -> None:
    """List the tenants, their limits, and the bytes that they have."""
    with _writing() as session:
        from service.tenants.tenants import bytes_of, list_tenants

        found = [
            {
                "id": tenant.id,
                "name": tenant.name,
                "max_running_jobs": tenant.max_running_jobs,
                "max_queued_jobs": tenant.max_queued_jobs,
                "max_evaluations": tenant.max_evaluations,
                "num_bytes": bytes_of(session, tenant.id),
                "max_bytes": tenant.max_bytes,
                "created_at": tenant.created_at,
            }
            for tenant in list_tenants(session)
        ]
    show(found, output, lambda: _print(found))


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    table = make_table("id", "name", "running", "queued", "evaluations", "bytes", "created (UTC)")
    for tenant in found:
        used, limit = tenant["num_bytes"], tenant["max_bytes"]
        table.add_row(
            tenant["id"],
            tenant["name"],
            *(_text(tenant[f"max_{what}"]) for what in ("running_jobs", "queued_jobs")),
            _text(tenant["max_evaluations"]),
            f"{used:,}" if limit is None else f"{used:,} of {limit:,}",
            utc(tenant["created_at"]),
        )
    print_table(table)


@app.command("set")
def set_limits_of(
    name: Name,
    max_running_jobs: MaxRunning = None,
    max_queued_jobs: MaxQueued = None,
    max_evaluations: MaxEvaluations = None,
    max_bytes: MaxBytes = None,
) -> None:
    """Change limits; `none` lifts one, and what is not given stays."""
    limits = _limits(
        max_running_jobs=max_running_jobs,
        max_queued_jobs=max_queued_jobs,
        max_evaluations=max_evaluations,
        max_bytes=max_bytes,
    )
    with _writing() as session:
        from service.tenants.tenants import find_tenant, set_limits

        set_limits(session, find_tenant(session, name), limits)


@app.command()
def key(
    name: Name,
    key_name: Annotated[str, typer.Option("--key-name", help="What to call the key.")] = "admin",
    scope: Annotated[
        list[str] | None, typer.Option(help="Give several; all of them if none.")
    ] = None,
) -> None:
    """Make an API key of a tenant and print it, this once."""
    with _writing() as session:
        from service.tenants.auth import SCOPES, create_key
        from service.tenants.tenants import find_tenant

        unknown = [asked for asked in scope or () if asked not in SCOPES]
        if unknown:
            raise InvalidInput("--scope", f"must be of {', '.join(SCOPES)}, got {unknown[0]!r}")
        tenant_id = find_tenant(session, name).id
        typer.echo(create_key(session, key_name, tenant_id=tenant_id, scopes=scope))


@contextmanager
def _writing() -> Iterator[Session]:
    settings = server_settings()
    from service.database.db import Database

    database = Database(settings.database_url)
    try:
        with database.write() as session:
            yield session
    finally:
        database.dispose()


def _limits(**given: str | None) -> dict[str, int | None]:
    """Those that were given, by the names that the database has for them."""
    return {name: _limit(name, text) for name, text in given.items() if text is not None}


def _limit(name: str, text: str) -> int | None:
    if text == NO_LIMIT:
        return None
    try:
        return int(text)
    except ValueError:
        option = f"--{name.replace('_', '-')}"
        raise InvalidInput(option, f"must be a whole number or `none`, got {text!r}") from None


def _text(limit: int | None) -> str:
    return NO_LIMIT if limit is None else f"{limit:,}"
