"""Commands that talk to a server about jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.connection import ApiKey, Url, connect
from service.cli.errors import JOB_FAILED
from service.cli.tables import make_table, print_table, utc
from service.cli.watching import watch_job
from service.client import Client
from service.jobfile import load_job_file
from service.schemas import JobState

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a search job.")]


def submit(
    file: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job, as YAML or JSON.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Submit a search job; local paths in it are uploaded first. Prints the job's id."""
    job_file = load_job_file(file)
    with connect(url, api_key) as client:
        spec = job_file.resolve(client, lambda text: typer.echo(text, err=True))
        job = client.submit(spec)
        typer.echo(job.id)
        if watch:
            _follow(client, job.id)


def watch(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Follow a job to its end. Ctrl-C stops watching, not the job."""
    with connect(url, api_key) as client:
        _follow(client, job_id)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    state: Annotated[
        list[JobState] | None, typer.Option(help="Only such; may be given again.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the newest jobs."""
    with connect(url, api_key) as client:
        found = client.jobs(limit, state or ())
    table = make_table("id", "name", "state", "stage", "created (UTC)")
    for job in found:
        table.add_row(job.id, job.name, job.state, job.stage or "", utc(job.created_at))
    print_table(table)


def cancel(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Ask a job to stop."""
    with connect(url, api_key) as client:
        typer.echo(client.cancel(job_id).state)


def pause(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Ask a job to rest; `resume` lets it go on where it was."""
    with connect(url, api_key) as client:
        typer.echo(client.pause(job_id).state)


def resume(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Let a paused job go on."""
    with connect(url, api_key) as client:
        typer.echo(client.resume(job_id).state)


def retry(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Try a failed or cancelled job again, from its last checkpoint."""
    with connect(url, api_key) as client:
        typer.echo(client.retry(job_id).state)


def extend(
    job_id: JobId,
    generations: Annotated[int, typer.Option(min=1, help="How many more.")],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Go on with the search of a job that has ended, in a new job. Prints its id."""
    with connect(url, api_key) as client:
        typer.echo(client.extend(job_id, generations).id)


def delete(job_id: JobId, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete a job that has ended, with all that it made."""
    with connect(url, api_key) as client:
        client.delete(job_id)


def download(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download what a job made, verified by SHA-256."""
    with connect(url, api_key) as client:
        paths = client.download(job_id, output or Path(job_id))
    for path in paths:
        typer.echo(path)
    if not paths:
        typer.echo("the job has made nothing yet", err=True)


def _follow(client: Client, job_id: str) -> None:
    try:
        job = watch_job(client, job_id)
    except KeyboardInterrupt:
        typer.echo(f"\nThe job goes on; `snugnet watch {job_id}` follows it again.", err=True)
        raise typer.Exit(130) from None
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(JOB_FAILED)
