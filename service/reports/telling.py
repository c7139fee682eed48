"""The sentences of a report: how a job stands, and what became of each promise."""

from __future__ import annotations

from collections.abc import Sequence

from service.jobs.job_states import TERMINAL
from service.reports.record import SEARCH, JobRecord
from service.reports.schema import TargetFound
from service.reports.words import in_words, quality_text
from service.web.formats import as_duration, as_ms


def headline(record: JobRecord, targets: Sequence[TargetFound]) -> str:
    job = record.job
    if job.state == "succeeded":
        took = as_duration((job.finished_at or record.now) - (job.started_at or job.created_at))
        if len(targets) == 1:
            return f"The budget is kept. The job took {took}."
        every = "Both" if len(targets) == 2 else f"All {len(targets)}"
        return f"{every} budgets are kept. The job took {took}."
    if job.state == "failed":
        reason = in_words(job.reason_message or job.reason_code or "no reason is known")
        return f"The job failed: {reason.rstrip('.')}."
    if job.state == "cancelled":
        return "The job was cancelled; what it had found by then is below."
    if job.state == "queued":
        return "The job waits for a worker."
    if job.state in ("pausing", "paused"):
        verb = "is being paused" if job.state == "pausing" else "is paused"
        return (
            f"The job {verb} in stage {job.stage or 'prepare'}; resume it, and it goes on there."
        )
    if job.state == "cancelling":
        return "The job is being cancelled."
    return f"The job runs: stage {job.stage or 'prepare'}."


def notes(record: JobRecord, targets: Sequence[TargetFound]) -> list[str]:
    """What a reader should know before the figures."""
    told = []
    job, report = record.job, record.report
    if job.state not in ("succeeded", "failed", "cancelled"):
        told.append("The job goes on: figures are those of now, and may still change.")
    elif report is None:
        told.append(
            "The job ended before its last stage: there are no measurements on the test split."
        )
    searched = record.found_by(SEARCH)
    if job.state == "failed" and job.reason_code == "budget_unreachable" and not searched:
        told.append(
            "No network of the space is predicted to keep a budget. Give a larger budget, a wider "
            "space (preset 'wide'), or another runtime or device."
        )
    missed = [target for target in targets if target.is_met is False]
    for target in missed:
        if target.p50_ms is None:
            told.append(
                f"Target {target.index} has no candidate: nothing that was found is predicted to "
                f"keep {as_ms(target.budget_ms)}."
            )
    account = ((report or {}).get("supernet") or {}).get("convergence") or {}
    gap = account.get("gap", {}).get("largest")
    if gap is not None and record.metric == "accuracy" and gap > 0.02:
        told.append(
            f"The supernet's largest subnet is {100 * gap:.1f} points below its teacher: more "
            "epochs of elastic training (training.supernet_epochs) are likely to help."
        )
    return told


def target_sentence(record: JobRecord, target: TargetFound) -> str:
    budget = as_ms(target.budget_ms)
    if target.is_met is None and record.job.state in TERMINAL:
        return "Nothing was measured: the job ended before."
    if target.is_met is None:
        if target.budget_ms is None:
            return "The device is still being learnt; the budget follows from it."
        return f"{budget} are to be kept; nothing has been measured yet."
    if target.p50_ms is None:
        return f"Missed: no candidate is predicted to keep {budget}."
    statistic = target.asked.statistic
    measured = as_ms(target.p95_ms if statistic == "p95" else target.p50_ms)
    quality = quality_text(target.quality, record.metric)
    if not target.is_met:
        return f"Missed: {measured} measured, {budget} asked; {quality} on the test split."
    faster = "" if target.speedup is None else f", {target.speedup:.1f} times as fast as before"
    return f"Kept: {measured} measured, {budget} allowed{faster}; {quality} on the test split."
