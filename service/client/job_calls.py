"""Calls about search jobs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from service.client.calls import LONG_POLL_SECONDS, Call, delete, get, patch, path_of, post, reads
from service.client.events import PAGE_TIMEOUT_SECONDS, PATIENCE_SECONDS, Feed, page_params
from service.client.plans import Plan, ask
from service.jobs.job_spec import JobSpec
from service.reports.schema import JobReport
from service.schemas import (
    DryRun,
    Evaluation,
    EvaluationPage,
    Event,
    EventPage,
    Job,
    JobPage,
    JobState,
)

JOBS = path_of("search-jobs")
NEVER = 2**31 - 1  # no event has such a `seq`: only the end of the job answers


def submit(
    spec: JobSpec | Mapping[str, Any], *, labels: Mapping[str, str] | None = None
) -> Call[Job]:
    """A new job.

    Args:
        labels: beside those of the spec, to find it by.
    """
    return post(reads(Job), JOBS, _body(spec, labels))


def dry_run(spec: JobSpec | Mapping[str, Any]) -> Call[DryRun]:
    """What submitting would come to; everything is checked, nothing is queued."""
    return post(reads(DryRun), f"{JOBS}:dry-run", _body(spec, None))


def job(job_id: str) -> Call[Job]:
    return get(Job, path_of("search-jobs", job_id))


def pages(
    *, states: Sequence[JobState] = (), label: Sequence[str] = (), page_size: int = 100
) -> Call[JobPage]:
    """Every job, newest first.

    Args:
        states: of these alone, where some are named.
        label: `key=value`, or `key` for any value; a job must have them all.
    """
    params = {"limit": page_size, "state": list(states), "label": list(label)}
    return get(JobPage, JOBS, params)


def jobs(
    limit: int = 50, states: Sequence[JobState] = (), label: Sequence[str] = ()
) -> Call[list[Job]]:
    """The newest; `iter_jobs` gives them all."""
    return pages(states=states, label=label, page_size=limit).then(lambda page: page.items)


def change(
    job_id: str,
    *,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    version: int | None = None,
) -> Call[Job]:
    """Another name, or other labels in place of all it has. As with all that takes a `version`:
    `HasChanged` where the job is of another by now."""
    body = {"name": name, "labels": None if labels is None else dict(labels)}
    return patch(Job, path_of("search-jobs", job_id), body, if_match(version))


def cancel(job_id: str, *, version: int | None = None) -> Call[Job]:
    return _asked(job_id, "cancel", version)


def pause(job_id: str, *, version: int | None = None) -> Call[Job]:
    return _asked(job_id, "pause", version)


def resume(job_id: str, *, version: int | None = None) -> Call[Job]:
    return _asked(job_id, "resume", version)


def retry(job_id: str, *, version: int | None = None) -> Call[Job]:
    """A failed or cancelled job again, from its last checkpoint."""
    return _asked(job_id, "retry", version)


def extend(job_id: str, generations: int) -> Call[Job]:
    """A new job that goes on where the search of one that has ended stopped."""
    body = {"generations": generations}
    return post(reads(Job), f"{path_of('search-jobs', job_id)}:extend", body)


def delete_job(job_id: str, *, version: int | None = None) -> Call[None]:
    return delete(path_of("search-jobs", job_id), if_match(version))


def events_page(
    job_id: str,
    *,
    after: int = 0,
    limit: int = 500,
    wait_s: float = 0.0,
    patience_s: float = 0.0,
) -> Call[EventPage]:
    """Events after `after`; waits up to `wait_s` for the first one when there is none yet."""
    return get(
        EventPage,
        path_of("search-jobs", job_id, "events"),
        page_params(after, limit, wait_s),
        timeout_s=wait_s + PAGE_TIMEOUT_SECONDS,
        patience_s=patience_s,
    )


def events(job_id: str, *, after: int = 0) -> Plan[list[Event]]:
    """Those that there are by now; `stream` also gives those that are to come."""
    found: list[Event] = []
    while True:
        page = yield from ask(events_page(job_id, after=after))
        found += page.items
        if not page.more:
            return found
        after = found[-1].seq


def stream(job_id: str, *, after: int = 0, patience_s: float = PATIENCE_SECONDS) -> Feed:
    """Every event of the job once, as they happen, until the job has ended.

    Args:
        patience_s: how long the server may be away (a restart) before `Unreachable`.
    """
    path = path_of("search-jobs", job_id, "events", "stream")
    return Feed(path, after=after, patience_s=patience_s)


def wait(
    job_id: str, timeout_s: float | None = None, *, patience_s: float = PATIENCE_SECONDS
) -> Plan[Job]:
    """The job in its final state.

    Raises:
        TimeoutError: it was still going on after `timeout_s`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = LONG_POLL_SECONDS if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"{job_id} was still going on after {timeout_s} s")
        page = yield from ask(
            events_page(
                job_id,
                after=NEVER,
                wait_s=min(LONG_POLL_SECONDS, left_s),
                patience_s=patience_s if deadline is None else min(patience_s, left_s),
            )
        )
        if page.terminal:
            return (yield from ask(job(job_id)))


def evaluations(job_id: str) -> Call[list[Evaluation]]:
    call = get(EvaluationPage, path_of("search-jobs", job_id, "evaluations"))
    return call.then(lambda page: page.items)


def report(job_id: str) -> Call[JobReport]:
    """What was asked, what was found, and the data of every picture; of a job that goes on, as
    far as it came."""
    return get(JobReport, path_of("search-jobs", job_id, "report"))


def report_html(job_id: str) -> Call[str]:
    """The same as one HTML file that needs no network."""
    return Call(
        method="GET",
        path=path_of("search-jobs", job_id, "report"),
        parse=lambda response: response.text,
        params={"format": "html"},
    )


def if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"v{version}"'}


def _asked(job_id: str, verb: str, version: int | None) -> Call[Job]:
    path = f"{path_of('search-jobs', job_id)}:{verb}"
    return post(reads(Job), path, headers=if_match(version))


def _body(spec: JobSpec | Mapping[str, Any], labels: Mapping[str, str] | None) -> dict[str, Any]:
    body = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
    return {**body, "labels": {**(body.get("labels") or {}), **labels}} if labels else body
