"""What a job's events tell, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from service.cli.job_story import JobStory, StageClock, show_quality
from service.schemas import Event

ENCODE = {"seq_len": 64, "runtime": "onnxruntime"}
LONG = {"seq_len": 128, "runtime": "onnxruntime"}


def target(workload: dict[str, Any] = ENCODE, **others: Any) -> dict[str, Any]:
    return {"device": "this-cpu", "workload": workload, "statistic": "p50", **others}


def story(*targets: dict[str, Any]) -> JobStory:
    return JobStory({"task": "text-classification", "targets": list(targets)})


def tell(to: JobStory, kind: str, at: float = 0.0, **data: Any) -> None:
    to.tell(Event(seq=1, at=at, kind=kind, level="info", message="", data=data))


def evaluate(to: JobStory, quality: float, *latencies_ms: float, source: str = "search") -> None:
    metrics = {
        "quality": quality,
        "latency_ms": latencies_ms[0],
        "latencies_ms": list(latencies_ms),
    }
    tell(to, "evaluation", source=source, metrics=metrics)


def test_a_stage_that_is_entered_again_goes_on_and_none_runs_while_the_job_rests() -> None:
    told = story(target(budget_ms=1.0))
    tell(told, "state", 0.0, state="running")
    tell(told, "stage", 10.0, stage="search")
    tell(told, "stage", 20.0, stage="finish")
    tell(told, "state", 25.0, state="pausing")
    tell(told, "state", 26.0, state="paused")
    tell(told, "state", 90.0, state="queued")
    tell(told, "state", 95.0, state="running")
    tell(told, "stage", 100.0, stage="search")
    assert told.clock.seconds(103.0) == {"search": 13.0, "finish": 11.0}
    tell(told, "state", 110.0, state="succeeded")
    assert told.clock.seconds(1000.0) == {"search": 20.0, "finish": 11.0}


def test_a_clock_that_goes_backwards_takes_nothing_away() -> None:
    clock = StageClock()
    clock.enter("search", 10.0)
    assert clock.seconds(5.0) == {"search": 0.0}


def test_a_ratio_becomes_a_budget_when_its_own_device_has_been_measured() -> None:
    told = story(target(budget_ratio=0.5), target(LONG, budget_ratio=0.5), target(budget_ms=9.0))
    assert [t.promise for t in told.targets] == [0, 1, 0]
    tell(told, "onboarded", reference_ms=8.0)
    assert [t.budget_ms for t in told.targets] == [4.0, None, 9.0]
    tell(told, "onboarded", reference_ms=20.0)
    assert [t.budget_ms for t in told.targets] == [4.0, 10.0, 9.0]
    tell(told, "onboarded", reference_ms=1.0)  # of whatever: nobody waits for it


def test_after_a_runtime_that_the_device_chooses_no_budget_is_guessed() -> None:
    fastest = {**ENCODE, "runtime": "auto"}
    told = story(target(fastest, budget_ratio=0.5), target(LONG, budget_ratio=0.5))
    tell(told, "onboarded", reference_ms=8.0)
    tell(told, "onboarded", reference_ms=6.0)  # of the first target's second runtime
    assert [t.budget_ms for t in told.targets] == [4.0, None]


def test_the_best_candidate_of_each_target_keeps_it_where_that_target_runs() -> None:
    told = story(target(budget_ms=2.0), target(LONG, budget_ms=2.0))
    evaluate(told, 0.9, 1.9, 3.0)
    evaluate(told, 0.8, 0.9, 1.5)
    evaluate(told, 0.7, 0.5, 0.9)
    evaluate(told, 0.99, 0.5, 0.5, source="random")  # for comparison alone
    first, second = (told.best(one) for one in told.targets)
    assert first is not None
    assert second is not None
    assert (first.quality, second.quality) == (0.9, 0.8)


def test_a_target_follows_its_network_from_the_race_to_the_device() -> None:
    told = story(target(budget_ms=2.0))
    raced = [{"quality": 0.8, "predicted_ms": 1.8}, {"quality": 0.83, "predicted_ms": 1.7}]
    tell(told, "shortlist", target=0, raced=raced)
    (one,) = told.targets
    assert (one.quality, one.predicted_ms, one.is_met) == (0.83, 1.7, None)
    tell(told, "distilled", target=0, before=0.83, quality=0.82)  # the better one is kept
    assert one.quality == 0.83
    tell(told, "target", target=0, is_met=False, p50_ms=2.1, predicted_ms=1.7, budget_ms=2.0)
    assert (one.is_met, one.measured_ms) == (False, 2.1)
    tell(told, "target", target=0, bound_ms=2.0)  # no candidate: what was measured is over
    assert one.is_met is False


@pytest.mark.parametrize(
    "data", [{"target": 7, "quality": 0.5}, {"target": None, "quality": 0.5}, {}]
)
def test_what_names_no_target_of_the_job_is_passed_over(data: dict[str, Any]) -> None:
    told = story(target(budget_ms=2.0))
    tell(told, "unsearched", **data)
    tell(told, "of a newer server", **data)
    assert told.targets[0].quality is None


@pytest.mark.parametrize(
    "kind", ["stage", "state", "evaluation", "onboarded", "shortlist", "distilled", "target"]
)
def test_events_of_another_shape_end_nothing(kind: str) -> None:
    told = story(target(budget_ratio=0.5))
    for data in ({}, {"target": 0}, {"metrics": None, "reference_ms": None, "raced": 3}):
        tell(told, kind, **data)
    assert told.points == []
    assert told.clock.stage is None


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    told = story(target(budget_ms=2.0))
    evaluate(told, float("nan"), 1.0)
    evaluate(told, 0.5, float("inf"))
    assert told.points == []


def test_qualities_are_told_as_the_task_tells_them() -> None:
    assert show_quality("image-classification", 0.9775) == "97.8%"
    assert show_quality("language-modelling", -4.0) == "54.60"
    assert show_quality("sentence-embedding", 0.98765) == "0.988"
