"""The page that sets searches and networks side by side, and helps to choose them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.database.models import Job
from service.jobs import jobs
from service.reports.comparing import FEWEST, MOST, compare, compared_chart
from service.reports.record import winners_of
from service.web.rendering import render
from service.web.viewers import JobsViewer

JOBS_OFFERED = 20

Offer = tuple[Job, Mapping[str, Sequence[int]]]
"""A search, and by the fingerprint of each network that it delivered the network's targets."""

router = APIRouter(include_in_schema=False)


@router.get("/compare")
def show(
    request: Request,
    viewer: JobsViewer,
    item: Annotated[list[str] | None, Query()] = None,
    change: bool = False,
) -> Response:
    """Without enough to compare, or to `change` what is compared, the choice of what there is."""
    chosen = list(dict.fromkeys(item or ()))
    error = ""
    with viewer.database.read() as session:
        if len(chosen) >= FEWEST and not change:
            try:
                found = compare(session, chosen)
            except InvalidInput as wrong:
                error = wrong.reason
            else:
                return render(
                    request, viewer, "compared.html", found=found, chart=compared_chart(found)
                )
        offered = _offered(session)
    return render(
        request,
        viewer,
        "compare.html",
        status_code=422 if error else 200,
        offered=offered,
        offered_values=_values(offered),
        chosen=chosen,
        error=error,
        most=MOST,
    )


def _values(offered: Sequence[Offer]) -> set[str]:
    return {
        value
        for job, winners in offered
        for value in (job.id, *(f"{job.id}/{network}" for network in winners))
    }


def _offered(session: Session) -> list[Offer]:
    """The newest searches."""
    rows = jobs.list_jobs(session, limit=JOBS_OFFERED)
    return [(row, winners_of(session, row.id)) for row in rows]
