"""The commands, and what happens to their errors."""

from __future__ import annotations

import sys

import typer

from search.errors import SnugnetError
from service.cli import devices, garbage, jobs, keys, local, roles, tenants, verify
from service.cli.errors import exit_code, report

app = typer.Typer(
    name="snugnet",
    help="Fit a transformer into a latency budget on the hardware it will run on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(local.up)
app.command()(local.down)
app.command()(jobs.submit)
app.command()(jobs.watch)
app.command("jobs")(jobs.list_jobs)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.retry)
app.command()(jobs.extend)
app.command()(jobs.delete)
app.command()(jobs.download)
app.add_typer(devices.app, name="devices")
app.command()(local.agent)
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(roles.api)
app.command()(roles.dispatcher)
app.command()(roles.worker)
app.command()(roles.migrate)
app.add_typer(roles.config, name="config")
app.command("gc")(garbage.collect)
app.command()(verify.verify)


def run() -> None:
    try:
        app()
    except SnugnetError as error:
        report(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # `snugnet jobs | head`
        sys.stderr.close()
        sys.exit(0)
