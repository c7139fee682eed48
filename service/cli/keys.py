"""Commands for API keys; they need a key with the scope `admin`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from service.cli.connection import ApiKey, Url, connect
from service.cli.output import Format, Output, show
from service.cli.tables import make_table, print_table, utc
from service.devices.device_schemas import ApiKey as Key

DAY_SECONDS = 86_400.0

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whom or what the key is for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="Of jobs:read, jobs:write, artifacts:read, devices:write, admin, and, for "
            "agents, devices:measure; give several."
        ),
    ],
    days: Annotated[
        float | None,
        typer.Option("--expires-days", min=0.001, help="It expires after so many days."),
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a key and print it, this once."""
    expires_at = None if days is None else time.time() + days * DAY_SECONDS
    with connect(url, api_key) as client:
        created = client.create_key(name, scope, expires_at)
    show(created, output, lambda: typer.echo(created.key))


@app.command("list")
def list_keys(output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None) -> None:
    """List all keys, revoked ones included; never the secrets."""
    with connect(url, api_key) as client:
        found = client.api_keys()
    show(found, output, lambda: _print(found))


def _print(found: Sequence[Key]) -> None:
    table = make_table(
        "id", "name", "scopes", "created (UTC)", "used (UTC)", "expires (UTC)", "state"
    )
    for key in found:
        is_expired = key.expires_at is not None and key.expires_at <= time.time()
        state = "revoked" if key.revoked_at else "expired" if is_expired else "good"
        times = (utc(key.created_at), utc(key.last_used_at), utc(key.expires_at))
        table.add_row(key.id, key.name, ", ".join(key.scopes), *times, state)
    print_table(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a key useless, at once and for good."""
    with connect(url, api_key) as client:
        revoked = client.revoke_key(key_id)
    show(revoked, output, lambda: typer.echo(f"{revoked.id} is revoked"))
