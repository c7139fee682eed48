"""The page of one network: drawn, measured, explained, and its files."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from service.api.dependencies import Service
from service.api.search_jobs import find_job
from service.reports.building import build_report
from service.reports.record import JobRecord
from service.reports.schema import TargetFound
from service.reports.subnets import snippet_in, subnet_report
from service.store.protocol import ArtifactStore
from service.web.rendering import render
from service.web.viewers import JobsViewer

CARD = "README.md"
MAX_CARD_BYTES = 1 << 20

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job_id}/subnets/{fingerprint}")
def show(
    job_id: str, fingerprint: str, request: Request, parts: Service, viewer: JobsViewer
) -> Response:
    with viewer.database.read() as session:
        record = JobRecord.read(session, find_job(session, job_id), time.time())
        report = build_report(record)
        found = subnet_report(session, record, report.targets, fingerprint)
    snippets = {target.index: _snippet(parts.store, target) for target in found.targets}
    indices = {target.index for target in found.targets}
    charts = {
        index: [c for c in report.charts if c.key.startswith(f"waterfall-{index}-")]
        for index in indices
    }
    return render(
        request,
        viewer,
        "subnet.html",
        report=report,
        found=found,
        snippets=snippets,
        waterfalls=charts,
    )


def _snippet(store: ArtifactStore, target: TargetFound) -> str | None:
    """As the model card among its files has it."""
    for file in target.files:
        if file.name == CARD and file.size_bytes <= MAX_CARD_BYTES:
            content = b"".join(store.open_range(file.sha256, 0, file.size_bytes))
            return snippet_in(content.decode("utf-8", "replace"))
    return None
