"""The job's verdict: succeeded when every target is met, failed with what came closest if not."""

from __future__ import annotations

from service.steps.step_types import StepFailed, StepResult
from workers.context import JobContext


def run(ctx: JobContext) -> StepResult:
    report = ctx.input["report"]
    missed = [index for index, is_met in enumerate(ctx.input["met"]) if not is_met]
    if not missed:
        return StepResult(result=report)
    closest = {i: report["targets"][i].get("p50_ms") for i in missed}
    told = "; ".join(
        f"targets[{i}]: {report['targets'][i]['budget_ms']:.3f} ms asked, "
        + (f"closest {p50_ms:.3f} ms" if p50_ms else "no candidate came near")
        for i, p50_ms in closest.items()
    )
    raise StepFailed("budget_unreachable", told, {"targets": missed})
