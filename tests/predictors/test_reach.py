from __future__ import annotations

import pytest

from predictors.reach import check_reachable, fastest_ms, resolve_budget
from predictors.workload_predictor import WorkloadPredictor
from search.errors import BudgetUnreachable
from tests.predictors.shapes import MINILM_SPACE
from tests.predictors.test_predictor import fit, row, training_rows


@pytest.fixture(scope="module")
def predictor() -> WorkloadPredictor:
    return fit(training_rows(noise=0.0))


def test_the_fastest_network_is_the_smallest_in_its_faster_precision(
    predictor: WorkloadPredictor,
) -> None:
    smallest = row(MINILM_SPACE.smallest.with_precision("int8")).median_ms
    assert fastest_ms(predictor, MINILM_SPACE) == pytest.approx(smallest, rel=0.05)


def test_a_ratio_is_of_the_unsearched_model(predictor: WorkloadPredictor) -> None:
    assert resolve_budget(predictor, budget_ms=None, budget_ratio=0.25) == 15.0 / 4
    assert resolve_budget(predictor, budget_ms=3.0, budget_ratio=None) == 3.0


def test_what_cannot_be_reached_is_refused_with_the_closest_latency() -> None:
    check_reachable("targets[0].budget_ms", 2.0, closest_ms=2.0)
    with pytest.raises(BudgetUnreachable, match=r"targets\[1\]\.budget_ms: .*closest.* 2\.5 ms"):
        check_reachable("targets[1].budget_ms", 2.0, closest_ms=2.5)
