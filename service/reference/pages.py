"""Every page by the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.reference import commands, job_file, metrics_page, rest, settings_page

PAGES: Mapping[str, Callable[[], str]] = {
    "command-line.md": commands.document,
    "configuration.md": settings_page.document,
    "job-file.md": job_file.document,
    "metrics.md": metrics_page.document,
    "rest.md": rest.document,
}
