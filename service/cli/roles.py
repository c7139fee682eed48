"""The roles of a service that is spread over processes and machines, each as one command.

They are set up by environment variables; `snugnet config show` prints what they would use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.errors import InvalidInput, SnugnetError
from service.embedded.embedded import SERVER_MODULES, NotStarted
from service.roles import METRICS_PORT_VARIABLE, metrics_environment, worker_command
from service.steps.step_kinds import QUEUES

if TYPE_CHECKING:
    from service.settings import Settings

WORKER_MODULES = (*SERVER_MODULES, "optuna", "safetensors", "tokenizers", "torch")

MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, envvar=METRICS_PORT_VARIABLE, help="Serve /metrics and /healthz there."
    ),
]

config = typer.Typer(help="What the environment sets.", no_args_is_help=True)


class NotCurrent(SnugnetError):
    """The database has another schema than this version needs."""

    code = "not_current"


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    dispatcher: Annotated[
        bool, typer.Option(help="Send the wake-ups too; else run `snugnet dispatcher`.")
    ] = True,
) -> None:
    """Answer requests. Run `snugnet migrate` first."""
    settings = server_settings(runs_dispatcher=dispatcher)
    from service.server import serve

    serve(settings, host=host, port=port)


def dispatcher(metrics_port: MetricsPort = None) -> None:
    """Send wake-ups and webhooks, and heal what was lost; several may run."""
    settings = server_settings(metrics_port=metrics_port)
    from service.steps.dispatching import serve

    serve(settings)


def checker(metrics_port: MetricsPort = None) -> None:
    """Check uploads, and fetch those of a hub; several may run. The API then has
    SNUGNET_RUNS_CHECKS=false."""
    settings = server_settings(metrics_port=metrics_port)
    from service.uploads.checks.serving import serve

    serve(settings)


def worker(
    queue: Annotated[
        str,
        typer.Option(help="The queues to serve, of train, search and light."),
    ] = ",".join(QUEUES),
    slots: Annotated[
        int, typer.Option(min=1, max=256, help="Steps at a time; one for a worker with a GPU.")
    ] = 1,
    metrics_port: MetricsPort = None,
) -> None:
    """Run the steps of jobs. Start as many as there are machines for."""
    settings = server_settings(needed=WORKER_MODULES, extra="worker", metrics_port=metrics_port)
    if settings.metrics_port is not None:
        # Named by a process, as everything there: swept away after its death.
        folder = settings.scratch_dir / f"{os.getpid()}-metrics"
        os.environ.update(metrics_environment(settings.metrics_port, folder))
    argv = worker_command(_queues(queue), slots=slots)
    os.execv(argv[0], argv)


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when it is not current.")
    ] = False,
    admin_key: Annotated[
        Path | None,
        typer.Option(help="File for an API key that may do everything; made unless it is good."),
    ] = None,
    agent_key: Annotated[
        Path | None, typer.Option(help="File for an API key that may only measure.")
    ] = None,
) -> None:
    """Bring the database to the schema that this version needs."""
    settings = server_settings()
    from service.database.migrate import current_revision, newest_revision, upgrade
    from service.embedded.bootstrap import write_key
    from service.tenants.auth import MEASURE, SCOPES

    if not check:
        upgrade(settings.database_url)
    found, needed = current_revision(settings.database_url), newest_revision()
    if found != needed:
        raise NotCurrent(f"the database has schema {found or 'none'}, this version needs {needed}")
    typer.echo(f"the database has schema {found}")
    for path, name, scopes in ((admin_key, "admin", SCOPES), (agent_key, "agent", (MEASURE,))):
        if path is not None and not check and write_key(settings.database_url, path, name, scopes):
            typer.echo(f"made the API key {name} and wrote it to {path}")


@config.command()
def show(
    redacted: Annotated[bool, typer.Option(help="Without the passwords of URLs.")] = True,
) -> None:
    """Print every setting of the server side as YAML."""
    import yaml

    settings = server_settings()
    values: dict[str, Any] = settings.redacted() if redacted else settings.model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False), nl=False)


def server_settings(
    *, needed: Sequence[str] = SERVER_MODULES, extra: str = "server", **values: Any
) -> Settings:
    """Raises:
    NotStarted: this installation lacks what the role needs.
    InvalidInput: the environment sets something impossible.
    """
    missing = [module for module in needed if find_spec(module) is None]
    if missing:
        raise NotStarted(
            f"this installation cannot do that ({', '.join(missing)} missing); "
            f"install snugnet[{extra}]"
        )
    from pydantic import ValidationError

    from service.settings import PREFIX, Settings

    try:
        return Settings(**{k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        field = f"{PREFIX}{name}" if name else "settings"
        raise InvalidInput(field, first["msg"].removeprefix("Value error, ")) from None


def _queues(text: str) -> list[str]:
    queues = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        raise InvalidInput("--queue", f"names some of {', '.join(QUEUES)}, got {text!r}")
    return queues
