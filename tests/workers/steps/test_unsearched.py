from __future__ import annotations

import pytest

from search.compress.distill import Distillation
from search.space import SubnetConfig
from search.training.evaluate import Quality
from tests.workers.steps.conftest import WholeJob
from workers.steps import shortlist
from workers.steps.state import State


def finished(whole_job: WholeJob, bound: float, quality: float) -> State:
    """State of a job whose networks are all as good as `quality` after distillation.

    Args:
        bound: times what the whole job's first target allowed.
    """

    def judged(*_: object) -> Quality:
        return Quality(value=quality, loss=1.0, num_rows=10, metric="accuracy")

    given = whole_job.step("search").input["targets"][0]
    target = {**given, "bound_ms": bound * given["bound_ms"], "profiles": [0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distillation, "quality", judged)
        patch.setattr(shortlist, "quality_of", judged)
        job = whole_job.again_from("search", {"budget_ratio": 1.0}, targets=[target])
        return State.parse(whole_job.workshop.run_until(job, "package").input)


def full_model(state: State, precision: str) -> SubnetConfig:
    return SubnetConfig.full(state.model_shape, precision)


def test_it_takes_the_place_of_a_network_that_is_less_accurate(whole_job: WholeJob) -> None:
    state = finished(whole_job, 100.0, quality=0.1)
    (target,) = state.targets
    assert target.config == full_model(state, "fp32")
    assert target.weights == state.blobs.teacher
    assert target.stages[-1].stage == "unsearched"
    assert target.quality == target.stages[-1].quality > 0.5


def test_it_does_not_where_the_network_found_is_as_good(whole_job: WholeJob) -> None:
    state = finished(whole_job, 100.0, quality=1.0)
    (target,) = state.targets
    assert target.stages[-1].stage == "unsearched"
    assert not target.stages[-1].kept
    assert target.weights != state.blobs.teacher
    assert target.quality == 1.0


def test_it_does_not_where_it_would_miss_the_budget(whole_job: WholeJob) -> None:
    state = finished(whole_job, 0.5, quality=0.1)
    (target,) = state.targets
    assert [record.stage for record in target.stages] == ["search", "shortlist", "distill"]
