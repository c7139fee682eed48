"""Commands that talk to a server about jobs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from search.errors import InvalidInput
from service.cli.connection import ApiKey, Url, connect
from service.cli.downloading import download_progress
from service.cli.errors import INTERRUPTED, JOB_FAILED
from service.cli.job_report import (
    print_dry_run,
    print_events,
    print_job,
    print_jobs,
    print_targets,
)
from service.cli.output import Format, Output, tell
from service.cli.output import show as show_data
from service.cli.tables import print_lines
from service.cli.watching import watch_job
from service.client import Client
from service.jobs.jobfile import load_job_file
from service.schemas import Job, JobState

MAX_PAGE = 500
STATES = [state.value for state in JobState if state is not JobState.UNKNOWN]

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a search job.")]
Label = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given again.")]


def submit(
    file: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job, as YAML or JSON.")],
    watch: Annotated[
        bool, typer.Option("--watch", "--follow", help="Follow it to its end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it and say what it would take; queue nothing.")
    ] = False,
    label: Label = None,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Submit a search job; local paths in it are uploaded first. Prints the job's id."""
    labels = _labels(label)
    job_file = load_job_file(file)
    with connect(url, api_key) as client:
        spec = job_file.resolve(client, tell)
        if dry_run:
            found = client.dry_run(spec)
            show_data(found, output, lambda: print_dry_run(found))
            return
        job = client.submit(spec, labels=labels)
        if not watch:
            show_data(job, output, lambda: typer.echo(job.id))
            return
        (typer.echo if output is Format.TABLE else tell)(job.id)
        _follow(client, job.id, output)


def watch(
    job_id: JobId, output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Follow a job to its end. Ctrl-C stops watching, not the job."""
    with connect(url, api_key) as client:
        _follow(client, job_id, output)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"Only such; may be given again. Of {', '.join(STATES)}."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="Only those with all of these labels."),
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the newest jobs."""
    states = [_state(name) for name in state or ()]
    with connect(url, api_key) as client:
        every = client.iter_jobs(states=states, label=label or (), page_size=min(limit, MAX_PAGE))
        found = list(islice(every, limit))
    show_data(found, output, lambda: print_jobs(found))


def show(
    job_id: JobId, output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Show one job: where it is, what it was asked for, what it has found."""
    with connect(url, api_key) as client:
        job = client.job(job_id)
    show_data(job, output, lambda: print_job(job))


def events(
    job_id: JobId,
    after: Annotated[int, typer.Option(min=0, help="Only later ones than this number.")] = 0,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List what has happened to a job so far; `watch` follows it."""
    with connect(url, api_key) as client:
        found = client.events(job_id, after=after)
    show_data(found, output, lambda: print_events(found))


def cancel(
    job_id: JobId, output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Ask a job to stop."""
    _ask(url, api_key, output, lambda client: client.cancel(job_id))


def pause(
    job_id: JobId, output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Ask a job to rest; `resume` lets it go on where it was."""
    _ask(url, api_key, output, lambda client: client.pause(job_id))


def resume(
    job_id: JobId, output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Let a paused job go on."""
    _ask(url, api_key, output, lambda client: client.resume(job_id))


def retry(
    job_id: JobId, output: Output = Format.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Try a failed or cancelled job again, from its last checkpoint."""
    _ask(url, api_key, output, lambda client: client.retry(job_id))


def extend(
    job_id: JobId,
    generations: Annotated[int, typer.Option(min=1, help="How many more.")],
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Go on with the search of a job that has ended, in a new job. Prints its id."""
    with connect(url, api_key) as client:
        job = client.extend(job_id, generations)
    show_data(job, output, lambda: typer.echo(job.id))


def delete(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete a job that has ended, with all that it made."""
    with connect(url, api_key) as client:
        client.delete(job_id)


def download(
    job_id: JobId,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where to; a folder named by the job if none.", show_default=False),
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download what a job made, verified by SHA-256. Prints the files.

    A download that broke off goes on where it stopped.
    """
    with connect(url, api_key) as client, download_progress() as on_progress:
        found = client.download(job_id, folder or Path(job_id), on_progress=on_progress)
    paths = [str(path) for path in found]
    if not paths:
        tell("the job has made nothing yet")
    show_data(paths, output, lambda: print_lines(paths))


def _ask(
    url: str | None, api_key: str | None, output: Format, ask: Callable[[Client], Job]
) -> None:
    with connect(url, api_key) as client:
        job = ask(client)
    show_data(job, output, lambda: typer.echo(job.state))


def _state(name: str) -> JobState:
    if name not in STATES:
        raise InvalidInput("--state", f"must be one of {', '.join(STATES)}, got {name!r}")
    return JobState(name)


def _labels(given: list[str] | None) -> dict[str, str]:
    labels = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidInput("--label", f"must be KEY=VALUE, got {text!r}")
        labels[key] = value
    return labels


def _follow(client: Client, job_id: str, output: Format) -> None:
    try:
        job = watch_job(client, job_id)
    except KeyboardInterrupt:
        tell(f"\nThe job goes on; `snugnet watch {job_id}` follows it again.")
        raise typer.Exit(INTERRUPTED) from None
    show_data(job, output, lambda: print_targets(job.result))
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(JOB_FAILED)
