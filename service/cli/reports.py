"""`snugnet report`: a job's report as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.errors import InvalidInput
from service.cli.connection import ApiKey, Url, connect
from service.cli.tables import print_lines
from service.client import Client

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a search job.")]


def report(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html",
            help="Where to; report-ID.html here if none. The same as JSON is put beside it.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Write a job's report: one HTML file that needs no network, and the same as JSON.

    A job that goes on has one too, of what it has found so far. Prints the files.
    """
    page = output or Path(f"report-{job_id}.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise InvalidInput("--output", f"must end with .html, got {str(page)!r}")
    with connect(url, api_key) as client:
        written = write_report(client, job_id, page)
    print_lines([str(path) for path in written])


def write_report(client: Client, job_id: str, page: Path) -> list[Path]:
    """The HTML and, beside it, the JSON; neither is ever there by half."""
    contents = {
        page: client.report_html(job_id),
        page.with_suffix(".json"): client.report(job_id).model_dump_json(indent=1) + "\n",
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    for path, text in contents.items():
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return list(contents)
