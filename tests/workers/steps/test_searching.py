"""The search and its baselines inside a job: what is weighed, what is recorded, what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from search import halving
from search.costs import flops, size_bytes
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training import judging
from service.jobs.evaluations import Evaluation
from service.steps.step_types import NewStep
from tests.workers.steps.conftest import WholeJob
from tests.workers.steps.in_process import Workshop

SEARCH = {
    "population": 4,
    "generations": 3,
    "fidelity_rows": 40,
    "sampler": "surrogate",
    "objectives": ["size_bytes", "flops"],
}


def searched(whole_job: WholeJob, **search: Any) -> tuple[Evaluation, ...]:
    """What a job records that begins with the search of the whole job's supernet."""
    spec = {**whole_job.spec, "search": {**SEARCH, **search}}
    given = whole_job.step("search").input
    job = whole_job.workshop.submit(spec, NewStep(kind="search", input=given))
    whole_job.workshop.run_until(job, "shortlist")
    return tuple(whole_job.workshop.evaluations(job))


@pytest.fixture(scope="module", autouse=True)
def _few_rows_tell() -> Iterator[None]:
    """The tiny job's 40 rows are looked at in rounds, and little gives a candidate up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "FIRST_RUNG", 10)
        patch.setattr(judging, "CONFIDENCE", 0.0)
        patch.setattr(halving, "MIN_DIFFERING_ROWS", 1)
        yield


@pytest.fixture(scope="module")
def evaluations(whole_job: WholeJob) -> tuple[Evaluation, ...]:
    return searched(whole_job)


def of(evaluations: tuple[Evaluation, ...], source: str) -> list[Evaluation]:
    return [e for e in evaluations if e.source == source]


def test_every_baseline_has_at_most_as_many_evaluations_as_the_search(
    evaluations: tuple[Evaluation, ...],
) -> None:
    assert {e.source for e in evaluations} == {"search", "random", "uniform", "flops"}
    for source in ("search", "random", "flops"):
        found = of(evaluations, source)
        assert len({e.fingerprint for e in found}) == len(found) == 12
    uniform = of(evaluations, "uniform")
    assert 0 < len({e.fingerprint for e in uniform}) == len(uniform) <= 12
    for evaluation in uniform:
        assert len(set(evaluation.subnet["ffn_dim"])) == 1


def test_values_are_kept_for_the_sampler_in_the_order_of_the_objectives(
    whole_job: WholeJob, evaluations: tuple[Evaluation, ...]
) -> None:
    shape = ModelShape.from_dict(whole_job.step("search").input["shape"])
    for evaluation in of(evaluations, "search"):
        subnet = SubnetConfig.from_dict(evaluation.subnet)
        assert evaluation.state is not None
        latency_ms, num_bytes, operations, quality = evaluation.state["values"]
        assert latency_ms == evaluation.metrics["latency_ms"]
        assert num_bytes == size_bytes(shape, subnet)
        assert operations == flops(shape, subnet, seq_len=32)
        assert quality == evaluation.metrics["quality"]


def test_the_search_by_operations_knows_no_latency(evaluations: tuple[Evaluation, ...]) -> None:
    for evaluation in of(evaluations, "flops"):
        assert evaluation.state is not None
        assert len(evaluation.state["values"]) == 2
        assert evaluation.metrics["latency_ms"] > 0, "it is judged by latency all the same"


def test_what_an_earlier_network_as_cheap_beats_is_looked_at_on_fewer_rows(
    whole_job: WholeJob,
) -> None:
    evaluations = searched(whole_job, objectives=[], population=12)
    given_up = [e for e in evaluations if e.metrics["num_rows"] < 40]
    assert given_up
    for evaluation in given_up:
        assert evaluation.fidelity in ("rows=10 of 40", "rows=20 of 40")
        assert evaluation.state is not None
        assert evaluation.state["values"][-1] == evaluation.metrics["quality"]
        assert any(
            rival.metrics["num_rows"] == 40
            and rival.metrics["latency_ms"] <= evaluation.metrics["latency_ms"]
            and rival.metrics["quality"] > evaluation.metrics["quality"]
            for rival in of(evaluations, evaluation.source)
            if rival.generation < evaluation.generation
        )


def test_a_job_may_have_all_rows_read_for_every_candidate(whole_job: WholeJob) -> None:
    found = searched(whole_job, halving=False)
    assert {e.metrics["num_rows"] for e in found} == {40}


def test_a_job_may_do_without_baselines(whole_job: WholeJob) -> None:
    assert {e.source for e in searched(whole_job, baselines=[])} == {"search"}


def test_a_space_that_is_used_up_ends_the_search(whole_job: WholeJob) -> None:
    given = whole_job.step("search").input
    space = SearchSpace.from_dict(given["space"]).with_choices(
        {"num_layers": (1,), "num_heads": (1, 2), "precision": ("fp32",)}
    )
    spec = {**whole_job.spec, "search": {**SEARCH, "generations": 9, "baselines": ["random"]}}
    given = {**given, "space": space.to_dict()}
    job = whole_job.workshop.submit(spec, NewStep(kind="search", input=given))
    whole_job.workshop.run_until(job, "shortlist")
    found = whole_job.workshop.evaluations(job)
    assert len([e for e in found if e.source == "search"]) == space.num_networks == 6
    assert len([e for e in found if e.source == "random"]) == 6


def test_several_workers_find_what_one_finds(
    whole_job: WholeJob, evaluations: tuple[Evaluation, ...]
) -> None:
    alone = whole_job.workshop
    settings = alone.settings.model_copy(update={"search_workers": 3})
    several = Workshop(settings, alone.database, alone.store, alone.measure)
    spec = {**whole_job.spec, "search": SEARCH}
    given = whole_job.step("search").input
    job = several.submit(spec, NewStep(kind="search", input=given))
    several.run_until(job, "shortlist")
    shares = [step.input for step in several.steps(job) if step.kind == "evaluate"]
    assert {share["source"] for share in shares} == {"search", "random", "flops"}
    assert max(len(share["children"]) for share in shares) == 2, "4 children, 3 workers"
    assert_same(several.evaluations(job), evaluations)


def assert_same(found: Sequence[Evaluation], expected: Sequence[Evaluation]) -> None:
    """Whatever order they were recorded in."""

    def essence(evaluation: Evaluation) -> Evaluation:
        return replace(evaluation, created_at=None)

    assert [essence(e) for e in found] == [essence(e) for e in expected]
