"""Following a job, on standard error: a bar on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.cli.job_report import amount
from service.client import Client
from service.device_schemas import Onboarding
from service.schemas import Event, EventPage, Job, JobState

STAGES = ("prepare", "onboard", "teacher", "supernet", "search", "finish", "report")
# How old the bar on a terminal may get; events arrive by themselves.
REFRESH_SECONDS = 2.0
PATIENCE_SECONDS = 60.0  # with a server that is being restarted


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """A job of some kind, and how to ask after it. `page` takes a `seq` and a wait in seconds."""

    fetch: Callable[[], Job | Onboarding]
    events: Callable[[], Iterator[Event]]
    page: Callable[[int, float], EventPage]


def watch_job(client: Client, job_id: str, console: Console | None = None) -> Job:
    """Show the job until it has ended; its final state."""
    console = console or Console(stderr=True)
    _watch(
        Followed(
            fetch=lambda: client.job(job_id),
            events=lambda: client.stream(job_id),
            page=lambda after, wait_s: client.events_page(
                job_id, after=after, wait_s=wait_s, patience_s=PATIENCE_SECONDS
            ),
        ),
        console,
    )
    job = client.job(job_id)
    _print_end(console, job)
    return job


def watch_onboarding(
    client: Client, onboarding_id: str, console: Console | None = None
) -> Onboarding:
    """Show it until it has ended; its final state."""
    console = console or Console(stderr=True)
    _watch(
        Followed(
            fetch=lambda: client.onboarding(onboarding_id),
            events=lambda: client.onboarding_stream(onboarding_id),
            page=lambda after, wait_s: client.onboarding_events_page(
                onboarding_id, after=after, wait_s=wait_s, patience_s=PATIENCE_SECONDS
            ),
        ),
        console,
    )
    onboarding = client.onboarding(onboarding_id)
    _print_end(console, onboarding)
    return onboarding


def _watch(followed: Followed, console: Console) -> None:
    if console.is_terminal and not console.is_dumb_terminal:
        _watch_with_bar(followed, console)
        return
    for event in followed.events():
        _print_event(console, event)


def _watch_with_bar(followed: Followed, console: Console) -> None:
    after = 0
    job = followed.fetch()
    with _bar(console) as progress:
        task = progress.add_task(_label(job), total=None, amount=amount(job.progress))
        while True:
            page = followed.page(after, REFRESH_SECONDS)
            for event in page.items:
                after = event.seq
                _print_event(progress.console, event)
            if page.more:
                continue
            job = followed.fetch()
            progress.update(
                task,
                description=_label(job),
                completed=job.progress.done,
                total=job.progress.total or None,
                amount=amount(job.progress),
            )
            if page.terminal:
                return


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        refresh_per_second=4,
    )


def _label(job: Job | Onboarding) -> str:
    if job.stage in STAGES:
        return f"{STAGES.index(job.stage) + 1}/{len(STAGES)} {job.stage}"
    return job.stage or job.state


def _print_event(console: Console, event: Event) -> None:
    if event.kind == "evaluation":
        return  # hundreds of them; the bar counts them, and each generation says what it found
    clock = datetime.fromtimestamp(event.at, UTC).strftime("%H:%M:%S")
    style = {"warning": "yellow", "error": "red"}.get(event.level)
    # No markup: a message may hold brackets of its own.
    line = f"{clock}  {event.message}"
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _print_end(console: Console, job: Job | Onboarding) -> None:
    if job.state is JobState.SUCCEEDED:
        return
    if job.status_reason is not None:
        sys.stderr.write(f"error: {job.id} {job.state}: {job.status_reason.message}\n")
    else:
        console.print(f"{job.id} {job.state}", markup=False, highlight=False)
