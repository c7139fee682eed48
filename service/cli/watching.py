"""Following a job, on standard error: a picture of it on a terminal, one line for each event
elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.cli.job_report import amount
from service.cli.job_story import JobStory
from service.cli.job_view import JobView
from service.client import Client
from service.devices.device_schemas import Onboarding
from service.schemas import Event, EventPage, Job, JobState

# How old the job on a terminal may get; events arrive by themselves.
REFRESH_SECONDS = 2.0
REFRESHES_PER_SECOND = 2
PATIENCE_SECONDS = 60.0  # with a server that is being restarted

Seen = TypeVar("Seen", Job, Onboarding)


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed(Generic[Seen]):
    """A job of some kind, and how to ask after it. `page` takes a `seq` and a wait in seconds."""

    fetch: Callable[[], Seen]
    events: Callable[[], Iterator[Event]]
    page: Callable[[int, float], EventPage]


def watch_job(client: Client, job_id: str, console: Console | None = None) -> Job:
    """Show the job until it has ended; its final state."""
    console = console or Console(stderr=True)
    followed = Followed(
        fetch=lambda: client.job(job_id),
        events=lambda: client.stream(job_id),
        page=lambda after, wait_s: client.events_page(
            job_id, after=after, wait_s=wait_s, patience_s=PATIENCE_SECONDS
        ),
    )
    if _is_drawn_on(console):
        _watch_with_picture(followed, console)
    else:
        _print_events(followed, console)
    job = client.job(job_id)
    _print_end(console, job)
    return job


def watch_onboarding(
    client: Client, onboarding_id: str, console: Console | None = None
) -> Onboarding:
    """Show it until it has ended; its final state."""
    console = console or Console(stderr=True)
    followed = Followed(
        fetch=lambda: client.onboarding(onboarding_id),
        events=lambda: client.onboarding_stream(onboarding_id),
        page=lambda after, wait_s: client.onboarding_events_page(
            onboarding_id, after=after, wait_s=wait_s, patience_s=PATIENCE_SECONDS
        ),
    )
    if _is_drawn_on(console):
        _watch_with_bar(followed, console)
    else:
        _print_events(followed, console)
    onboarding = client.onboarding(onboarding_id)
    _print_end(console, onboarding)
    return onboarding


def _is_drawn_on(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _print_events(followed: Followed[Seen], console: Console) -> None:
    for event in followed.events():
        _print_event(console, event)


def _watch_with_picture(followed: Followed[Job], console: Console) -> None:
    """The picture stays where it is, with the events above it, and remains when all is over."""
    job = followed.fetch()
    view = JobView(job, JobStory(job.spec))
    with Live(view, console=console, refresh_per_second=REFRESHES_PER_SECOND) as live:
        for news in _news(followed):
            for event in news.events:
                view.story.tell(event)
                _print_event(live.console, event)
            if news.job is not None:
                view.job = news.job
        live.refresh()


def _watch_with_bar(followed: Followed[Onboarding], console: Console) -> None:
    onboarding = followed.fetch()
    with _bar(console) as progress:
        task = progress.add_task(
            _label(onboarding), total=None, amount=amount(onboarding.progress)
        )
        for news in _news(followed):
            for event in news.events:
                _print_event(progress.console, event)
            if news.job is None:
                continue
            progress.update(
                task,
                description=_label(news.job),
                completed=news.job.progress.done,
                total=news.job.progress.total or None,
                amount=amount(news.job.progress),
            )


@dataclass(frozen=True, slots=True)
class News(Generic[Seen]):
    """Events that were not told yet, and the job after them; None while there are more."""

    events: Sequence[Event]
    job: Seen | None


def _news(followed: Followed[Seen]) -> Iterator[News[Seen]]:
    """Until the job has ended, at least every `REFRESH_SECONDS`."""
    after = 0
    while True:
        page = followed.page(after, REFRESH_SECONDS)
        if page.items:
            after = page.items[-1].seq
        if page.more:
            yield News(page.items, None)
            continue
        yield News(page.items, followed.fetch())
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


def _label(onboarding: Onboarding) -> str:
    return onboarding.stage or onboarding.state


def _print_event(console: Console, event: Event) -> None:
    if event.kind == "evaluation":
        return  # hundreds of them; each generation says what it found
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
