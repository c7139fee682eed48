"""The unsearched model as an answer: where it keeps a target, nothing less replaces it."""

from __future__ import annotations

from search.space import PRECISIONS, SubnetConfig
from search.training.evaluate import evaluate
from workers.context import JobContext
from workers.steps.data import load_network, load_rows
from workers.steps.latencies import Latencies
from workers.steps.state import StageRecord, State


def prefer_unsearched(ctx: JobContext, state: State) -> State:
    """With the fine-tuned model in the current target's place, merely quantized if need be, where
    it is predicted to keep the bound and is more accurate than the network found and trained."""
    found = _that_fits(ctx, state)
    if found is None:
        return state
    subnet, predicted_ms, profile = found
    model = load_network(ctx, state, state.blobs.teacher)
    rows = load_rows(ctx, state.blobs.validation)
    quality = evaluate(model, rows, subnet).value
    target = state.target
    is_better = quality > target.quality
    record = StageRecord(
        stage="unsearched",
        quality=quality,
        latency_ms=predicted_ms,
        kept=is_better,
        note=f"the fine-tuned model in {subnet.precision}, which keeps the budget by itself",
    )
    if not is_better:
        return state.with_target(target.with_stage(record))
    ctx.event(
        "unsearched",
        f"target {state.current_target}: the unsearched model in {subnet.precision} keeps it and "
        f"has {state.task.show(quality)}, the network found {state.task.show(target.quality)}",
        {"target": state.current_target, "quality": quality, "found": target.quality},
    )
    changed = target.with_stage(
        record,
        subnet=subnet.to_dict(),
        weights=state.blobs.teacher,
        predicted_ms=predicted_ms,
        profile=profile,
    )
    return state.with_target(changed)


def _that_fits(ctx: JobContext, state: State) -> tuple[SubnetConfig, float, int] | None:
    """In the first precision that the target's bound allows, fp32 before int8: with its predicted
    latency in ms, and the profile that it would run in."""
    latencies, target = Latencies.of(ctx, state), state.target
    promise = latencies.promise_of(state.current_target)
    for precision in sorted(state.search_space.precision, key=PRECISIONS.index):
        subnet = SubnetConfig.full(state.model_shape, precision)
        estimate = latencies.estimate(promise, [subnet])
        fits = bool(estimate.upper_ms[0] <= target.bound_ms)
        if fits and subnet.fingerprint not in target.rejected:
            return subnet, float(estimate.mean_ms[0]), int(estimate.profile[0])
    return None
