"""What a search job would come to, without one."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import JobsWriter, Service
from service.jobs.estimates import Scale, estimate
from service.jobs.job_spec import JobSpec
from service.jobs.submission import Submission, check_exports, check_submission
from service.schemas import DryRun, StageEstimate, TargetEstimate
from service.tenants.tenants import check_new_job

router = APIRouter(prefix="/v1/search-jobs", tags=["search jobs"])


@router.post(":dry-run")
def dry_run(spec: JobSpec, parts: Service, caller: JobsWriter) -> DryRun:
    """Everything that a submission is checked for, and what the job would come to: the size of
    its space, how fast a network can be, how long it takes. Nothing is queued."""
    with caller.database.read() as session:
        found = check_submission(session, parts.store, spec, parts.checker.inspector.inspect)
        if parts.settings.worker_is_here:
            check_exports(spec)
        check_new_job(session, caller.tenant_id, spec)
        estimated = estimate(session, Scale.of(spec, found.shape, found.num_rows))
    return DryRun(
        num_networks=str(found.space.num_networks),
        num_evaluations=spec.search.num_evaluations,
        targets=[_target(found, index) for index in range(len(spec.targets))],
        stages=[
            StageEstimate(stage=stage, seconds=seconds)
            for stage, seconds in estimated.seconds.items()
        ],
        total_seconds=estimated.total_seconds,
        num_earlier_jobs=estimated.num_earlier_jobs,
    )


def _target(found: Submission, index: int) -> TargetEstimate:
    return TargetEstimate(
        device=found.spec.targets[index].device,
        budget_ms=found.budget_ms(index),
        closest_ms=found.closest_ms(index),
    )
