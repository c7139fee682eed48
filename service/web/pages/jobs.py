"""The list of searches: where each one is, and whether its targets are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.api.feeds import cursor_after, read_cursor
from service.database.models import Event, Job
from service.jobs import jobs
from service.jobs.job_states import ACTIVE, TERMINAL
from service.jobs.stages import stages_of
from service.schemas import LABEL_KEY, JobState
from service.web.rendering import render
from service.web.viewers import JobsViewer

JOBS_OF_A_PAGE = 25
GOING_ON = "active"
STATES = tuple(state.value for state in JobState if state is not JobState.UNKNOWN)
STAGE_TITLES = {
    "prepare": "preparing",
    "onboard": "measuring the device",
    "teacher": "fine-tuning the model",
    "supernet": "training the supernet",
    "search": "searching",
    "finish": "finishing the winners",
    "report": "writing the report",
}
OPEN, UNDECIDED, MET, MISSED = "open", "undecided", "met", "missed"
BUDGET_UNREACHABLE = "budget_unreachable"
"""Why a job fails whose targets are not all met."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """What the viewer asked for; an empty string asks for nothing."""

    state: str = ""
    name: str = ""
    label: str = ""

    @classmethod
    def of(cls, request: Request) -> Filters:
        query = request.query_params
        return cls(**{name: query.get(name, "").strip() for name in cls.__slots__})

    @property
    def states(self) -> tuple[str, ...] | None:
        if not self.state:
            return None
        return ACTIVE if self.state == GOING_ON else (self.state,)

    @property
    def labels(self) -> dict[str, str | None]:
        """Raises: InvalidInput when it is neither `key` nor `key=value`."""
        if not self.label:
            return {}
        key, equals, value = self.label.partition("=")
        if not LABEL_KEY.fullmatch(key.strip()):
            raise InvalidInput("label", "must be key=value, or a key alone")
        return {key.strip(): value.strip() if equals else None}

    def query(self, **more: str) -> str:
        """Of an address that asks for the same."""
        asked = {name: getattr(self, name) for name in self.__slots__}
        return urlencode({name: value for name, value in {**asked, **more}.items() if value})


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetLine:
    """A promise, and what has become of it: `state` is open, met, missed, or undecided where the
    job ended before it was tried."""

    device: str
    statistic: str
    budget_ms: float | None
    budget_ratio: float | None
    measured_ms: float | None
    state: str

    @property
    def share(self) -> str:
        """The budget, as a share of what the unsearched model takes."""
        return f"{100 * self.budget_ratio:.4g} %" if self.budget_ratio is not None else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLine:
    """A job as a row of the list."""

    job: Job
    targets: Sequence[TargetLine]

    @property
    def stage_title(self) -> str:
        return STAGE_TITLES.get(self.job.stage or "", self.job.stage or "")

    @property
    def stages(self) -> Sequence[str]:
        return stages_of(self.job.spec.get("supernet_of"))

    @property
    def stage_number(self) -> int | None:
        stage = self.job.stage
        return self.stages.index(stage) + 1 if stage in self.stages else None


@router.get("/jobs")
def list_all(request: Request, viewer: JobsViewer) -> Response:
    filters, cursor = Filters.of(request), request.query_params.get("cursor")
    problem, lines, older = "", [], ""
    try:
        before = read_cursor(cursor or None)
        with viewer.database.read() as session:
            rows = jobs.list_jobs(
                session,
                states=filters.states,
                labels=filters.labels,
                name_part=filters.name,
                with_result=False,
                limit=JOBS_OF_A_PAGE + 1,
                before=before,
            )
            lines = job_lines(session, rows[:JOBS_OF_A_PAGE])
        if len(rows) > JOBS_OF_A_PAGE:
            older = filters.query(cursor=cursor_after(rows[JOBS_OF_A_PAGE - 1]))
    except InvalidInput as error:
        problem = f"{error.field} {error.reason}."
    is_part = "hx-request" in request.headers
    return render(
        request,
        viewer,
        "jobs_list.html" if is_part else "jobs.html",
        status_code=422 if problem else 200,
        filters=filters,
        states=STATES,
        lines=lines,
        older=older,
        newest=filters.query() if cursor else None,
        problem=problem,
    )


def job_lines(session: Session, rows: Sequence[Job]) -> list[JobLine]:
    found = jobs.found_for_targets(session, [row.id for row in rows])
    missed = _missed_targets(session, rows)
    return [
        JobLine(job=row, targets=_targets(row, found.get(row.id), missed.get(row.id)))
        for row in rows
    ]


def _missed_targets(session: Session, rows: Sequence[Job]) -> dict[str, frozenset[int]]:
    """Of jobs that failed for a budget, which targets: the event that ended them tells."""
    last = [(row.id, row.last_event_seq) for row in rows if row.reason_code == BUDGET_UNREACHABLE]
    if not last:
        return {}
    query = select(Event.job_id, Event.data).where(tuple_(Event.job_id, Event.seq).in_(last))
    return {
        job_id: frozenset(data["targets"])
        for job_id, data in session.execute(query)
        if isinstance(data.get("targets"), list)
    }


def _targets(
    row: Job, found: Sequence[Mapping[str, Any]] | None, missed: frozenset[int] | None
) -> list[TargetLine]:
    lines = []
    for index, target in enumerate(row.spec.get("targets") or ()):
        got = found[index] if found is not None and index < len(found) else None
        state = UNDECIDED if row.state in TERMINAL else OPEN
        if got is not None:
            state = MET if got.get("is_met") else MISSED
        elif missed is not None:
            state = MISSED if index in missed else MET
        measured = got.get(f"{target.get('statistic', 'p50')}_ms") if got is not None else None
        lines.append(
            TargetLine(
                device=target.get("device", ""),
                statistic=target.get("statistic", ""),
                budget_ms=got.get("budget_ms") if got is not None else target.get("budget_ms"),
                budget_ratio=target.get("budget_ratio"),
                measured_ms=measured,
                state=state,
            )
        )
    return lines
