"""Budgets: what cannot be reached fails early, and what is missed is repaired or said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from predictors.measurement import Measurement
from predictors.spec import MeasuringSpec
from search.space import SubnetConfig
from service.jobs.job_spec import TargetSpec
from tests.workers.steps.conftest import WholeJob
from workers.steps.onboard import MAX_MEASURING_TRIES
from workers.steps.state import Look, Recipe, StageRecord, Target
from workers.steps.verify import MAX_REPAIRS, judge, repaired


class Doctored:
    """A device on which exported files take these multiples of the unsearched model's time."""

    def __init__(self, whole_job: WholeJob, *factors: float) -> None:
        (self._known, *_) = whole_job.device.results.values()
        self._factors = factors
        self.asked: list[list[SubnetConfig]] = []

    def __call__(self, spec: MeasuringSpec) -> dict[str, Any]:
        place = min(len(self.asked), len(self._factors) - 1)
        self.asked.append([n.subnet for n in spec.networks if n.subnet and n.key[0] == "t"])
        reference = {**self._known["anchors"][0]}
        measurements = []
        for network in spec.networks:
            assert network.subnet is not None
            factor = self._factors[place] if network.key.startswith("t") else 0.8
            rounds = [[t * factor for t in times] for times in reference["rounds_ms"]]
            measurements.append(
                {
                    **reference,
                    "key": network.key,
                    "subnet": network.subnet.to_dict(),
                    "rounds_ms": rounds,
                }
            )
        return {**self._known, "measurements": measurements}


def run_on(
    device: Doctored, whole_job: WholeJob, target: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, dict[str, Any]]:
    """The job from its search on, and its report."""
    workshop = whole_job.workshop
    monkeypatch.setattr(workshop, "measure", device)
    targets = whole_job.step("search").input["targets"][:1]
    job = workshop.run(whole_job.again_from("search", target, targets=targets))
    (report,) = [a for a in workshop.artifacts(job.id) if a.name == "report.json"]
    return job, json.loads(workshop.store.path(report.sha256).read_text())


@pytest.mark.parametrize("target", [{"budget_ms": 1e-5}, {"budget_ratio": 1e-5}])
def test_a_budget_that_no_network_keeps_fails_before_anything_is_trained(
    whole_job: WholeJob, target: dict[str, Any]
) -> None:
    job = whole_job.workshop.run(whole_job.again_from("onboard", target))
    assert job.state == "failed"
    assert job.reason_code == "budget_unreachable"
    (field,) = target
    assert f"targets[0].{field}" in job.reason_message
    assert "the closest reachable latency is" in job.reason_message
    (step,) = whole_job.workshop.steps(job.id)
    assert step.attempts == 1
    assert step.error["closest_ms"] > step.error["budget_ms"]


def test_a_missed_measurement_is_repaired_by_another_network(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Doctored(whole_job, 1.2, 0.4)
    job, report = run_on(device, whole_job, {"budget_ratio": 1.0}, monkeypatch)
    assert job.state == "succeeded"
    (target,) = report["targets"]
    assert target["repairs"] == 1
    assert target["is_met"]
    assert target["p50_ms"] == pytest.approx(0.4 * report["baseline"]["p50_ms"])
    (missed,), (repaired,) = device.asked
    assert missed != repaired
    assert target["subnet"] == repaired.to_dict()
    told = [e for e in whole_job.workshop.events(job.id) if e.kind == "target"]
    assert [event.data["is_met"] for event in told] == [False, True]


def test_a_miss_that_cannot_be_repaired_is_never_silent(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Doctored(whole_job, 1.05)
    job, report = run_on(device, whole_job, {"budget_ratio": 1.0}, monkeypatch)
    assert job.state == "failed"
    assert job.reason_code == "budget_unreachable"
    assert "targets[0]" in job.reason_message
    (target,) = report["targets"]
    assert not target["is_met"]
    assert target["repairs"] <= MAX_REPAIRS
    tried = [subnet.fingerprint for (subnet,) in device.asked]
    assert len(set(tried)) == len(tried) > 1


def test_a_network_that_is_not_accurate_enough_is_no_success(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Doctored(whole_job, 0.4)
    monkeypatch.setattr("workers.steps.verify.MAX_REPAIRS", 0)
    target = {"budget_ratio": 1.0, "min_quality": 1.0}
    monkeypatch.setattr("workers.steps.verify.judge", _never_perfect)
    job, report = run_on(device, whole_job, target, monkeypatch)
    assert job.state == "failed"
    assert not report["targets"][0]["is_met"]


def test_a_noisy_session_is_repeated_with_another_order_and_not_for_ever(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    (known, *_) = whole_job.device.results.values()
    seeds = []

    def measure(spec: MeasuringSpec) -> dict[str, Any]:
        seeds.append(spec.seed)
        return {**known, "session": {**known["session"], "noisy": True}}

    workshop = whole_job.workshop
    monkeypatch.setattr(workshop, "measure", measure)
    job_id = workshop.submit(whole_job.spec)
    workshop.run_until(job_id, "teacher")
    assert len(set(seeds)) == len(seeds) == MAX_MEASURING_TRIES
    warnings = [e for e in workshop.events(job_id) if e.kind == "noisy"]
    assert len(warnings) == MAX_MEASURING_TRIES


def measured(median_ms: float, key: str = "t0") -> Measurement:
    times = ((median_ms, median_ms, 2 * median_ms),) * 3
    return Measurement(
        key=key, subnet=None, rounds_ms=times, reference_ms=times, factors=(1.0, 1.0, 1.0)
    )


def exported(**changes: Any) -> Target:
    target = Target(
        profiles=(0,),
        profile=0,
        budget_ms=1.0,
        bound_ms=1.0,
        subnet={"layers": [0], "num_heads": [1], "ffn_dim": [8], "precision": "fp32"},
        onnx="0" * 64,
        size_bytes=1,
        stages=(StageRecord(stage="export", quality=0.9),),
    )
    return target.updated(**changes)


def _never_perfect(target: Target, *rest: Any) -> Target:
    worse = target.stages[-1].model_copy(update={"quality": 0.9})
    return judge(target.updated(stages=(*target.stages[:-1], worse)), *rest)


@pytest.mark.parametrize(
    ("spec", "file_ms", "is_met"),
    [
        ({"budget_ms": 1.0}, 1.0, True),
        ({"budget_ms": 1.0}, 1.01, False),
        ({"budget_ms": 1.0, "statistic": "p95"}, 0.8, False),
        ({"budget_ms": 1.0, "statistic": "p95"}, 0.4, True),
        ({"budget_ms": 1.0, "min_quality": 0.9}, 0.8, True),
        ({"budget_ms": 1.0, "min_quality": 0.91}, 0.8, False),
    ],
)
def test_a_target_is_judged_by_its_own_statistic(
    spec: dict[str, Any], file_ms: float, is_met: bool
) -> None:
    judged = judge(exported(), TargetSpec(**spec), measured(file_ms), measured(4.0, "reference"))
    assert judged.is_met is is_met
    assert judged.stages[-1].stage == "measure"


def test_a_ratio_is_held_against_the_unsearched_model_of_the_same_session() -> None:
    spec = TargetSpec(budget_ratio=0.25)
    target = exported(budget_ms=3.0, budget_ratio=0.25)  # as the first session would have it
    judged = judge(target, spec, measured(2.0), measured(4.0, "reference"))
    assert judged.budget_ms == 1.0
    assert not judged.is_met


def test_a_repair_rejects_the_network_that_was_searched_whatever_its_recipe_made_of_it() -> None:
    look = Look(figures={}, file_bytes=1)
    recipe = Recipe(winner="f" * 16, network="a", look=look, good="a", good_look=look)
    target = judge(
        exported(recipe=recipe), TargetSpec(budget_ms=1.0), measured(2.0), measured(4.0)
    )
    again = repaired(target)
    assert again.rejected == ("f" * 16,)
    assert again.recipe is None
    assert again.bound_ms == 0.5
