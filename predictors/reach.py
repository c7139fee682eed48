"""Which budgets a space can keep at all."""

from __future__ import annotations

from predictors.predictor import Statistic
from predictors.workload_predictor import WorkloadPredictor
from search.errors import BudgetUnreachable
from search.space import SearchSpace


def fastest_ms(
    predictor: WorkloadPredictor, space: SearchSpace, statistic: Statistic = "p50"
) -> float:
    """Expected latency of the smallest network, in its fastest precision."""
    smallest = [
        space.smallest.with_precision(precision)
        for precision in space.precision
        if precision in predictor.precisions
    ]
    return float(predictor.predict(smallest, statistic).mean_ms.min())


def resolve_budget(
    predictor: WorkloadPredictor, *, budget_ms: float | None, budget_ratio: float | None
) -> float:
    """The budget in milliseconds; a ratio is of the unsearched model's latency in fp32."""
    if budget_ms is not None:
        return budget_ms
    assert budget_ratio is not None, "a target has one of both"
    return budget_ratio * predictor.reference_ms


def check_reachable(field: str, budget_ms: float, closest_ms: float) -> None:
    """Raises: BudgetUnreachable when even the smallest network takes longer than the budget."""
    if closest_ms > budget_ms:
        raise BudgetUnreachable(field, budget_ms, closest_ms)
