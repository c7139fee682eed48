"""The commands, and what happens to their errors."""

from __future__ import annotations

import sys

import typer

from search.errors import SnugnetError
from service.cli import (
    devices,
    doctor,
    garbage,
    jobs,
    keys,
    local,
    reports,
    roles,
    status,
    tenants,
    verify,
)
from service.cli.errors import INTERRUPTED, JOB_FAILED, MEANINGS, exit_code, report
from service.cli.output import tell

ABOUT = "Fit a transformer into a latency budget on the hardware it will run on."
# An empty line between them keeps each in a line of its own.
EXIT_CODES = "\n\n".join(f"{code:>3}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="snugnet",
    help=ABOUT,
    epilog=f"Exit codes:\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(local.up)
app.command()(local.down)
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(local.reset)
app.command()(jobs.submit)
app.command()(jobs.watch)
app.command("jobs")(jobs.list_jobs)
app.command()(jobs.show)
app.command()(jobs.events)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.retry)
app.command()(jobs.extend)
app.command()(jobs.delete)
app.command()(jobs.download)
app.command()(reports.report)
app.add_typer(devices.app, name="devices")
app.command()(local.agent)
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(roles.api)
app.command()(roles.dispatcher)
app.command()(roles.checker)
app.command()(roles.worker)
app.command()(roles.migrate)
app.add_typer(roles.config, name="config")
app.command("gc")(garbage.collect)
app.command()(verify.verify)


def run() -> None:
    try:
        app(prog_name="snugnet")
    except SnugnetError as error:
        report(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # `snugnet jobs | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        report(error)
        sys.exit(JOB_FAILED)
    except KeyboardInterrupt:
        tell("interrupted")
        sys.exit(INTERRUPTED)
